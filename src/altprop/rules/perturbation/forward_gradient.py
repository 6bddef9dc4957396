"""Forward gradient: an exact directional derivative, found while going forward, times the random direction.

Baydin, Pearlmutter, Syme, Wood & Torr 2022 (arXiv 2202.08587); Ren, Kornblith, Liao & Hinton 2023 (arXiv 2210.03310).
Blocks h_l = F_l(a_l), a_l = W_l h_{l-1} + b_l, losses L_s of the samples s of a batch, L their mean. Forward-mode
differentiation carries tangents along with the values, and no value has to wait for a way back:

    "activities":  u_l = ±1 a sample and unit, 0 where a ReLU is at rest,    d_s = sum over l of dL_s/da_ls . u_ls
                   dW_l = mean over s of d_s u_ls h_{l-1,s}^T,               db_l = mean over s of d_s u_ls
    "weights":     V_l = ±1 a weight,    d = sum over l of dL/dW_l . V_l,    dW_l = d V_l    (b_l alike)

Both are the gradient in the mean over the signs, because E[u u^T] is the identity. The variance of the first grows with
the number of units, that of the second with the number of weights.

Departures from the papers:
1. Directions are random signs and not normal: the same mean, less variance, a cheaper draw.
2. One direction a step goes through all blocks, the output block too, and meets the net's own loss; the local losses of
   the second paper are the rule `local-forward-gradient`.
3. All samples of a batch share one direction in the weights; in the activities each has its own.
4. Units that are normalised are perturbed even where the ReLU behind is at rest: they move the scale of the others.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import losses, scores_missing
from altprop.rules.perturbation.affine import correlate, directions, layer_of, layers_missing, tapped, without_bias
from altprop.rules.perturbation.duals import NO_TANGENT, dual_level, make_dual, unpack_dual
from altprop.rules.perturbation.signs import weight_signs


class ForwardGradient(Rule):
    """Forward gradients (Baydin et al. 2022, Ren et al. 2023), of the activities or of the weights.

    Arguments:
        perturb: "activities" keeps every block's input until the loss is known; "weights" keeps nothing, draws each
            direction twice, and learns more slowly.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=True,
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
        perturb: str = "activities",
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if perturb not in ("activities", "weights"):
            raise UsageError(f'perturb={perturb!r} is not known; choose "activities" or "weights"')
        self.perturb = perturb
        if perturb == "weights":
            self.claims = replace(self.claims, memory="flat")

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return scores_missing(net, problem) or layers_missing(net)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        with dual_level():
            return self._by_weights(x, y) if self.perturb == "weights" else self._by_activities(x, y)

    def _by_activities(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Metrics:
        waiting: dict[int, tuple[Tensor, Tensor]] = {}  # h_{l-1} and u_l

        def push(i: int, h: Tensor, a: Tensor) -> Tensor:
            waiting[i] = h, directions(self.net[i], a, self.generator)
            return waiting[i][1]

        loss, d = unpack_dual(losses(self._scores(x, push), y, self.problem.kind))
        d = d / len(d)
        for i in sorted(waiting):
            h, u = waiting.pop(i)
            correlate(layer_of(self.net[i]), h, u * d.view(-1, *[1] * (u.dim() - 1)))
            self.update(f"blocks.{i}")
        return {"loss": loss.mean()}

    def _by_weights(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> Metrics:
        start = self.generator.get_state()

        def push(i: int, h: Tensor, a: Tensor) -> Tensor:
            layer = layer_of(self.net[i])
            frozen = {name: torch.zeros_like(p) for name, p in layer.named_parameters() if not p.requires_grad}
            v = weight_signs(layer, self.generator) | frozen
            if isinstance(layer, nn.Linear):  # without the noise that it may have
                return linear(h, v["weight"], v.get("bias"))
            pushed: Tensor = functional_call(layer, v, (h,))
            return pushed  # the layer is linear in its parameters: V_l h_{l-1}, and V's bias

        loss, d = unpack_dual(losses(self._scores(x, push), y, self.problem.kind).mean())
        self.generator.set_state(start)  # the same directions again: a net's worth of them is never kept
        for i, block in enumerate(self.net):
            if f"blocks.{i}" in self.optimizers:
                layer = layer_of(block)
                for name, v in weight_signs(layer, self.generator).items():
                    layer.get_parameter(name).grad = v.mul_(d)
                self.update(f"blocks.{i}")
        return {"loss": loss}

    def _scores(self, x: Float[Tensor, "batch ..."], push: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """The scores with their tangent, which is made of push(i, h_{i-1}, a_i) in each block that learns."""
        out, first = x, min(int(part.removeprefix("blocks.")) for part in self.optimizers)
        for i, block in enumerate(self.net):
            if f"blocks.{i}" in self.optimizers:
                h, t = unpack_dual(out)
                with tapped(layer_of(block), partial(self._carried, i, h, t, push)):
                    out = block(h)
            else:
                out = block(out)
            if i >= first and unpack_dual(out).tangent is None:
                raise UsageError("ForwardGradient: " + NO_TANGENT)
        return out

    def _carried(
        self, i: int, h: Tensor, t: Tensor | None, push: Callable[[int, Tensor, Tensor], Tensor], a: Tensor
    ) -> Tensor:
        """a_i with its tangent; forward mode by itself would waste a product on the weights, which have none."""
        tangent = push(i, h, a)
        carried: Tensor = make_dual(a, tangent if t is None else tangent + without_bias(layer_of(self.net[i]), t))
        return carried
