"""GeneRec: a unit learns from how its own activity changes once the outputs are clamped to the label.

O'Reilly 1996 (doi 10.1162/neco.1996.8.5.895), the generalised recirculation algorithm. The net settles twice, as in
contrastive Hebbian learning: freely (s^-), and from there with its outputs clamped (s^+). With sender i and receiver j:

    plain         dw_ij ~ s_i^- (s_j^+ - s_j^-)
    midpoint      dw_ij ~ (s_i^- + s_i^+) / 2 (s_j^+ - s_j^-)
    symmetrised   the midpoint's update of both ways, added: s_i^+ s_j^+ - s_i^- s_j^-, contrastive Hebbian learning

The difference of a receiver's activities stands for the error that came down to it, so plain GeneRec is an
approximation of Almeida and Pineda's gradient, and its midpoint a second-order one.

Departures from the paper:
1. `ways="own"`: the ways down have weights V of their own, which learn by the same rule with their sender above. With
   `ways="shared"` a weight acts both ways, and learns as the way up (plain, midpoint) or as both (symmetrised).
2. `clamp` below 1 moves the outputs that part of the way to the label; updates are divided by it.
3. The ways down have the strength g (`feedback`), and updates of layer l are divided by g^(L-l) (Xie & Seung 2003).
4. Fixed-point equations from a feed-forward start instead of small steps; output units may be linear. Adam by default.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.energy.fixed_point import States
from altprop.rules.energy.hopfield import Hopfield, System, clamped, linear, not_linear, squared_error

UPDATES = ("plain", "midpoint", "symmetrised")


class GeneRec(Hopfield):
    """GeneRec on perceptrons with bounded activations.

    Arguments:
        kind: "plain", "midpoint" or "symmetrised".
        ways: down through the weights of the way up ("shared"), or through others ("own", the parts "feedback.1" ...,
            drawn at random like the ways up: N(0, their variance)).
        clamp: how far the outputs are moved to the label in the plus phase, in (0, 1].
        The others are those of `Hopfield` and `Rule`.
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
        kind: str = "midpoint",
        ways: str = "shared",
        clamp: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if kind not in UPDATES or ways not in ("shared", "own") or not 0.0 < clamp <= 1.0:
            raise UsageError(
                f"GeneRec(kind={kind!r}, ways={ways!r}, clamp={clamp}): choose a kind among {', '.join(UPDATES)}, the "
                "ways 'shared' or 'own', and a clamp in (0, 1]"
            )
        self.kind, self.clamp = kind, clamp
        self.ways = nn.ParameterDict()
        if ways == "own":
            for i in range(1, len(net)):
                self._add_way(i)

    def _add_way(self, i: int) -> None:
        """Weights of their own down from block i, as wide apart as those of the way up."""
        layer = linear(self.net[i])
        assert layer is not None
        down = torch.randn(layer.weight.shape, generator=self.generator).to(layer.weight)
        self.ways[str(i)] = nn.Parameter(down * layer.weight.detach().std())
        self.add_part(f"feedback.{i}", nn.ParameterList([self.ways[str(i)]]))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return not_linear(net) or super().supports(net, problem)

    def system(self, x: Float[Tensor, "batch ..."]) -> System:
        system = super().system(x)
        system.ways = list(self.ways.values())
        return system

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        system, target = self.system(x), self.target(y, x)
        minus = system.relax(system.feed_forward(), self.solver)
        shown = torch.lerp(minus.states[-1], target, self.clamp)
        plus = system.relax([*minus.states[:-1], shown], self.solver, clamped)
        self._learn_ways([x, *minus.states], [x, *plus.states])
        return {"loss": squared_error(minus.states[-1], target), **self.settling(minus, plus)}

    def _learn_ways(self, minus: States, plus: States) -> None:
        """Both ways between block i and what is below it (0 is the input); biases are weights from a unit that is 1."""
        depth, most = len(self.net), 1 / torch.finfo(minus[0].dtype).eps
        changes = [p - m for m, p in zip(minus, plus, strict=True)]
        senders = minus if self.kind == "plain" else [(m + p) / 2 for m, p in zip(minus, plus, strict=True)]
        for i, block in enumerate(self.net):
            scale = min(self.feedback ** (i + 1 - depth), most) / (-self.clamp * len(minus[0]))
            up, down = (scale * changes[i + 1]).T @ senders[i], (scale * senders[i + 1]).T @ changes[i]
            if self.kind == "symmetrised":
                up = down = up + down
            layer = linear(block)
            assert layer is not None
            learners = [(f"blocks.{i}", layer.weight, up), (f"feedback.{i}", self.ways.get(str(i)), down)]
            if layer.bias is not None and layer.bias.requires_grad:
                layer.bias.grad = scale * changes[i + 1].sum(0)
            for part, weight, gradient in learners:
                if part not in self.optimizers:
                    continue
                if weight.requires_grad:
                    weight.grad = gradient
                self.update(part)
