"""Hebbian rules whose input must be prepared: centred, or white. They see to it themselves, or say what is missing."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError, warn
from altprop.rule import Problem
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer, largest_eigenvalue, patches, power

INPUTS = ("centred", "whitened", "as they are")
ENOUGH = 16
"""Patches that show a mean."""


class Prepared(Hebbian):
    """Base of rules that learn from correlations about the mean.

    Arguments:
        inputs: what each layer that learns sees: "centred" and "whitened" put `nets.Centre` and `nets.Whiten` before it
            (the rule's net has these blocks, too); "as they are" is for nets and data that need nothing.
        memory: samples that those blocks look back on.
        eps: of `nets.Whiten`.
        The others are those of `Hebbian`.
    """

    relative = False
    """Whether rates are in units of 1 / <||x||^2>."""
    longest = 4.0
    """The norm of a weight that shows growth, in a rule whose weights end at about 1."""

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        inputs: str = "centred",
        memory: int = 10_000,
        eps: float = 1e-2,
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        if inputs not in INPUTS:
            raise UsageError(f"{name}(inputs={inputs!r}): choose one of {', '.join(INPUTS)}")
        if problem is not None and self.refuses(net, problem) is None and None not in problem.input_shape:
            net = self.prepared(net, tuple(int(n or 0) for n in problem.input_shape), inputs, memory, eps)
        super().__init__(net, problem, settle=settle, **options)
        if inputs == "as they are" and (self.head is None or self.head.kind in ("softmax", "delta")):
            self.claims = replace(self.claims, training_only=False)
        self._first: dict[int, Tensor | None] = {}

    def prepared(
        self, net: nn.Sequential, shape: tuple[int, ...], inputs: str, memory: int, eps: float
    ) -> nn.Sequential:
        """The net that the rule trains: the user's blocks, with others between them."""
        if inputs == "centred":
            return nets.centred(net, shape, memory)
        return nets.whitened(net, shape, eps, memory) if inputs == "whitened" else net

    def adapt(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."], rate: float
    ) -> None:
        self.inspect(i, layer, x, rate)
        super().adapt(i, layer, x, u, rate)

    def inspect(self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], rate: float) -> None:
        """Say so, once, if block i's input is not what the rule needs, and if its weights grow without bound."""
        if self._first.get(i, x) is not None:
            self._meet(i, layer, patches(layer, x))
        longest = float(layer.weight.flatten(1).square().sum(1).max()) ** 0.5
        if not longest <= self.longest:
            self._judge(i, layer, x, longest, rate)

    def _meet(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"]) -> None:
        """Keep block i's first patches until they tell its mean, and then its rank."""
        before = self._first.get(i)
        known = 0 if before is None else len(before)
        rows = rows if before is None else torch.cat([before, rows])
        if known < ENOUGH <= len(rows):
            self.look(i, layer, rows)
        told = len(rows) >= max(ENOUGH, 2 * min(len(layer.weight), rows.shape[1]))
        if told:
            self._count(i, layer, rows)
        self._first[i] = None if told else rows

    def look(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"]) -> None:
        """Whether block i's input is what the rule needs."""
        mean = rows.mean(0)
        share = float(mean.square().sum() / rows.square().sum(1).mean())
        if share > 0.2 + 3.0 / len(rows):
            warn(
                f"{type(self).__name__}: the input of block {i} is not centred ({share:.0%} of its mean square is "
                'that of its mean), so the first unit learns it; give inputs="centred", or put nets.Centre before the '
                "block"
            )

    def _count(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"]) -> None:
        """Whether block i has more units than its input has dimensions."""
        units, rank = len(layer.weight), int(torch.linalg.matrix_rank(rows - rows.mean(0)))
        if rank < units:
            warn(
                f"{type(self).__name__}: block {i} has {units} units, and its input only rank {rank}; the others find "
                "nothing of their own, so build it with fewer units"
            )

    def _judge(self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], longest: float, rate: float) -> None:
        """Raise UsageError if it is the rate that makes weights grow."""
        scale = float(power(layer, x)) if self.relative else 1.0
        largest = largest_eigenvalue(layer, x)
        bound = 0.5 * scale / largest if largest > 0.0 else float("inf")
        used = rate * float(self.optimizers[f"blocks.{i}"].param_groups[0]["lr"])
        if used > bound or not longest < float("inf"):
            above = f", above the stable bound of {bound:.3g} (0.5 over the largest eigenvalue of what it sees)"
            raise UsageError(
                f"{type(self).__name__}: the weights of block {i} grow without bound (the longest has norm "
                f"{longest:.3g}); its rate is {used:.3g}{above if used > bound else ''}; choose a lower one"
            )
