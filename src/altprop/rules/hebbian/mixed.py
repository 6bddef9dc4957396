"""Several rules on one net: a Hebbian rule for the first blocks, another rule for the rest and the output block.

The common way to put unsupervised plasticity to use (Lagani et al. 2021, arXiv 2103.09002, among others, mixes layer by
layer). With the first m blocks and those above them:

    h = F_m(... F_1(x))          learnt by the rule below, from x alone
    the rule above learns from (h, y), as if h were its input

Nothing crosses from above to below, so the lower blocks wait for nobody; the rule above may be any that learns from
labels on the blocks that are left.

Departures from the paper:
1. Both learn in every step, and the rate of the rule below falls to zero at its `settle`; the paper trains one after
   the other.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets, rules
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer


class Mixed(Rule):
    """One rule below and one above.

    Arguments:
        below: the name of a rule that learns without an error (a `Hebbian` one), for the first blocks.
        above: a rule's name, for the blocks above them, output block included.
        blocks: how many learn by the rule below.
        lower, upper: options of the two rules.
        optimizer: of the rule above; that of the rule below is its own, or lower["optimizer"].
        The others are those of `Rule`; parts are named "below/blocks.0", "above/blocks.0" and so on, each rule
        counting its own blocks.
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="grows",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        below: str = "hebbian-pca",
        above: str = "direct-feedback-alignment",
        blocks: int = 1,
        lower: dict[str, Any] | None = None,
        upper: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if not 0 < blocks < len(net):
            raise UsageError(f"Mixed(blocks={blocks}): give at least one of the net's {len(net)} blocks to each rule")
        kind = rules.find(below)
        if not issubclass(kind, Hebbian):
            raise UsageError(f"Mixed(below={below!r}): it must be a rule that learns from inputs alone, a Hebbian one")
        super().__init__(net, problem, **options)
        self.optimizers.clear()  # the two rules have them
        self._rates.clear()
        first, rest = nn.Sequential(*list(net)[:blocks]), nn.Sequential(*list(net)[blocks:])
        shape = self.problem.input_shape
        middle = nets.shapes(first, shape)[-1]
        shared: dict[str, Any] = {"generator": self.generator, "schedule": self.schedule}
        own = {**shared, "readout": None, **(lower or {})}
        self.below = kind(first, Problem(shape, self.problem.outputs), **own)
        if "optimizer" in options:
            shared["optimizer"] = options["optimizer"]
        left = Problem(middle, self.problem.outputs, self.problem.kind)
        self.above = rules.find(above)(rest, left, **{**shared, **(upper or {})})
        self.host("below", self.below)
        self.host("above", self.above)
        claims = self.above.claims  # the blocks below are written first, and need nothing of the others
        self.claims = replace(
            self.claims,
            later_blocks=claims.later_blocks,
            order="forward" if claims.order == "forward" else "mixed",
            differentiable=claims.differentiable,
            memory=claims.memory,
        )

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if len(net) < 2 or not isinstance(nets.affine(net[0]), Layer):
            return (
                "its first block learns by a Hebbian rule, and is neither linear nor convolutional, or the only one; "
                "build the net with altprop.nets.mlp or conv"
            )
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        self.below.progress = self.above.progress = self.progress
        return self.above.learn(self.below.absorb(x), y)

    def progress_of(self, part: str) -> float:
        word, _, own = part.partition("/")
        return (self.below if word == "below" else self.above).progress_of(own)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        scores: Tensor = self.above(self.below.net(x))
        return scores

    def finish(self) -> None:
        self.above.finish()
