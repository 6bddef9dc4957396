"""Dual propagation: every neuron is a pair of oppositely nudged states; their mean goes up, their difference down.

Høier, Staudt & Zach 2023 (ICML, arXiv 2302.01228), and the form that is stable for any a, DP^T, of Høier & Zach 2024
(ICML, arXiv 2402.08573). With s_l the mean and d_l the difference of the pair (s+_l, s-_l), and b = 1 - a:

    s_l = a s+_l + b s-_l,   d_l = s+_l - s-_l,   z_l = W_l s_{l-1},   s_0 = x
    s+_l = f(z_l + p W_{l+1}^T d_{l+1})      DP^T ("lagrangian"): p = b, m = a
    s-_l = f(z_l - m W_{l+1}^T d_{l+1})      DP   ("original"):   p = a, m = b;   they are the same for a = 1/2
    output: s+_L = z_L - p beta e,   s-_L = z_L + m beta e,   e = dLoss/dz_L
    dW_l = -d_l s_{l-1}^T / beta

One forward pass, then pairs from the output down (`sweeps=1`), and the updates are backprop's up to O(beta^2) for
a = 1/2 and O(beta) else: d_l is a difference of two activities, and no activation is differentiated.

Departures from the papers:
1. e is taken once, from the forward pass, for both forms; cross-entropy or half the squared error.
2. The mean of a pair goes through a pooling; what comes down goes back through it by its transposed derivative.
3. A block without a layer (a step, a black box) is a layer with the identity for its weights.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_error
from altprop.rules.targets.parts import Parts, parts_of, refusal, transposed


class DualPropagation(Rule):
    """Dual propagation (Høier, Staudt & Zach 2023; Høier & Zach 2024) for linear and convolutional layers.

    Arguments:
        beta: how far the output's pair is apart, in units of its error.
        mixture: a, the weight of the upper state in the mean, from 0 to 1.
        form: "lagrangian" (DP^T) or "original" (DP).
        sweeps: how often the pairs are set from the output down; all but the first time, up before that.
        The others are those of `Rule`.

    Metrics: "loss", and "residual": how much the last sweep changed what a block takes in, the mean over its units, of
    the block where it is the largest. At 0 the pairs have settled.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=False,
        memory="grows",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        beta: float = 0.1,
        mixture: float = 0.5,
        form: str = "lagrangian",
        sweeps: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0.0 < beta < float("inf") or not 0.0 <= mixture <= 1.0 or sweeps < 1:
            raise UsageError(
                f"DualPropagation(beta={beta}, mixture={mixture}, sweeps={sweeps}): beta must be positive, mixture "
                "between 0 and 1, and sweeps at least 1"
            )
        if form not in ("lagrangian", "original"):
            raise UsageError(f"DualPropagation(form={form!r}): choose 'lagrangian' or 'original'")
        self.beta, self.mixture, self.form, self.sweeps = beta, mixture, form, sweeps

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if any(isinstance(block, nets.Block) and block.norm is not None for block in net):
            return "the states of a pair are nudged unit by unit, and a norm mixes units; build the net without norm"
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        chain = Chain([parts_of(block) for block in self.net], x)
        loss, e = output_error(chain.z[-1], y, self.problem.kind)
        nudge = self.beta * e
        shares = (1 - self.mixture, self.mixture)
        plus, minus = shares if self.form == "lagrangian" else shares[::-1]
        for sweep in range(self.sweeps):
            if sweep > 0:
                chain.up(plus, minus, self.mixture)
            residual = chain.down(nudge, plus, minus, self.mixture)
        for i, part in enumerate(chain.parts):
            if f"blocks.{i}" in self.optimizers:
                part.fill_gradients(chain.h[i], chain.difference[i] / (-self.beta * len(x)))
                self.update(f"blocks.{i}")
        return {"loss": loss, "residual": residual}


class Chain:
    """The pairs of all blocks at one moment.

    Of block i: h[i] is what it takes in, z[i] what its layer gives, push[i] what comes down to it before its weights in
    the pair are put in, mean[i] and difference[i] those of its pair before pooling.
    """

    def __init__(self, parts: list[Parts], x: Float[Tensor, "batch ..."]) -> None:
        """One forward pass: both states of each pair are the same."""
        self.parts, self.h = parts, [x]
        self.z: list[Tensor] = []
        self.mean: list[Tensor] = []
        for part in parts:
            self.z.append(part.drive(self.h[-1]))
            self.mean.append(part.excite(self.z[-1]))
            self.h.append(part.pooled(self.mean[-1]))
        self.push: list[Tensor] = [torch.empty(0)] * len(parts)
        self.difference = list(self.push)

    def down(self, nudge: Float[Tensor, "batch outputs"], plus: float, minus: float, a: float) -> Float[Tensor, ""]:
        """Set the pairs from the output down; returns the largest mean change of a block's input."""
        residual = nudge.new_zeros(())
        self.push[-1] = -nudge
        for i in reversed(range(len(self.parts))):
            if i < len(self.parts) - 1:
                layer, d = self.parts[i + 1].layer, self.difference[i + 1]
                down = d if layer is None else transposed(layer, layer.weight, d, self.h[i + 1])
                self.push[i] = self.parts[i].unpool(self.mean[i], down)
            before = self.h[i + 1]
            self._pair(i, plus, minus, a)
            if i < len(self.parts) - 1:
                residual = torch.maximum(residual, (self.h[i + 1] - before).abs_().mean())
        return residual

    def up(self, plus: float, minus: float, a: float) -> None:
        """Take the changed means up; the first layer's input is clamped."""
        for i in range(1, len(self.parts)):
            self.z[i] = self.parts[i].drive(self.h[i])
            self._pair(i, plus, minus, a)

    def _pair(self, i: int, plus: float, minus: float, a: float) -> None:
        part, z, push = self.parts[i], self.z[i], self.push[i]
        upper, lower = (part.excite(z.add(push, alpha=share)) for share in (plus, -minus))
        self.difference[i] = upper - lower
        self.mean[i] = torch.lerp(lower, upper, a)
        self.h[i + 1] = part.pooled(self.mean[i])
