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
SPARE = 1 / 8
"""The share of units that may find nothing of their own in silence: some pixels never change."""


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
        self._seen: set[int] = set()
        self._sums: dict[int, tuple[int, Tensor, float]] = {}

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
        if i not in self._seen:
            self._meet(i, layer, patches(layer, x))
        longest = float(layer.weight.flatten(1).square().sum(1).max()) ** 0.5
        if not longest <= self.longest:
            self._judge(i, layer, x, longest, rate)

    def _meet(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"]) -> None:
        """Gather block i's mean until there are enough patches to tell it, and look at its input then."""
        n, total, squares = self._sums.pop(i, (0, rows.new_zeros(rows.shape[1]), 0.0))
        n, total, squares = n + len(rows), total + rows.sum(0), squares + float(rows.square().sum())
        if n < ENOUGH:
            self._sums[i] = n, total, squares
            return
        self._seen.add(i)
        share = float((total / n).square().sum()) / max(squares / n, torch.finfo(rows.dtype).tiny)
        if share > 0.2 + 3.0 / n:
            warn(
                f"{type(self).__name__}: the input of block {i} is not centred ({share:.0%} of its mean square is "
                'that of its mean), so the first unit learns it; give inputs="centred", or put nets.Centre before the '
                "block"
            )
        self.look(i, layer, rows)

    def look(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"]) -> None:
        """Whether block i has many more units than its input has dimensions, as far as these patches tell."""
        units, rank = len(layer.weight), rows.shape[1]
        if len(rows) > 2 * units:
            rank = int(torch.linalg.matrix_rank(rows - rows.mean(0)))
        if rank < (1.0 - SPARE) * units:
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
