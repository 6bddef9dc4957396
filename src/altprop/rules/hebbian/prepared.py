"""Hebbian rules whose input must be prepared: centred, or white. They see to it themselves, or say what is missing."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import Diverged, UsageError, warn
from altprop.rule import Problem
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer, largest_eigenvalue, patches, power

INPUTS = ("centred", "whitened", "as they are")
ENOUGH = 16
"""Patches that show a mean; a rank takes two for each unit, or for each input where there are fewer."""
SPARE = 1 / 4
"""The share of units that may find nothing of their own in silence: some pixels hardly ever change."""


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
    swings = True
    """Whether units swing about what they look for, at a rate above 1 over the largest eigenvalue of what they see."""
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
        self._rows: dict[int, list[Tensor]] = {}

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
            self._meet(i, layer, patches(layer, x), rate)
        longest = float(layer.weight.flatten(1).square().sum(1).max()) ** 0.5
        if not longest <= self.longest:
            self._judge(i, layer, x, longest, rate)

    def _meet(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"], rate: float) -> None:
        """Gather what block i sees until there is enough to judge by."""
        gathered = self._rows.setdefault(i, [])
        gathered.append(rows)
        n = sum(map(len, gathered))
        if n - len(rows) < ENOUGH <= n:
            self._centre(i, torch.cat(gathered))
        if self.looking and n >= max(ENOUGH, 2 * min(layer.weight.flatten(1).shape)):
            self._seen.add(i)
            self.look(i, layer, torch.cat(self._rows.pop(i)), self._used(i, rate))

    def _centre(self, i: int, rows: Float[Tensor, "patches inputs"]) -> None:
        """Whether these patches have a mean that their spread does not explain."""
        share = float(rows.mean(0).square().sum() / rows.square().sum(1).mean().clamp_min(torch.finfo(rows.dtype).tiny))
        if share > 0.2 + 3.0 / len(rows):
            warn(
                f"{type(self).__name__}: the input of block {i} is not centred ({share:.0%} of its mean square is "
                'that of its mean), so the first unit learns it; give inputs="centred", or put nets.Centre before the '
                "block"
            )

    def look(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"], rate: float) -> None:
        """Whether block i has many more units than its input has dimensions, and whether its rate makes them swing."""
        units, (n, inputs) = len(layer.weight), rows.shape
        sizes = torch.linalg.svdvals(rows - rows.mean(0))
        rank = int((sizes > sizes[0] * max(n, inputs) * torch.finfo(rows.dtype).eps).sum())
        if rank < (1.0 - SPARE) * units:
            warn(
                f"{type(self).__name__}: block {i} has {units} units, and its input only rank {rank} in {n} patches; "
                "the others find nothing of their own, so build it with fewer units"
            )
        scale = float(rows.square().sum(1).mean()) if self.relative else 1.0
        bound = scale * n / max(float(sizes[0]) ** 2, torch.finfo(rows.dtype).tiny)
        if self.swings and rate > bound:
            warn(
                f"{type(self).__name__}: the rate of block {i}, {rate:.3g}, is above {bound:.3g} (1 over the largest "
                "eigenvalue of what it sees), so that its units swing about what they look for, and may never settle; "
                f"choose {0.5 * bound:.2g} or less"
            )

    def _judge(self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], longest: float, rate: float) -> None:
        """Raise Diverged if it is the rate that makes weights grow."""
        scale = float(power(layer, x)) if self.relative else 1.0
        largest = largest_eigenvalue(layer, x)
        bound = 0.5 * scale / largest if largest > 0.0 else float("inf")
        used = self._used(i, rate)
        if used > bound or not longest < float("inf"):
            above = f", above the stable bound of {bound:.3g} (0.5 over the largest eigenvalue of what it sees)"
            raise Diverged(
                f"{type(self).__name__}: the weights of block {i} grow without bound (the longest has norm "
                f"{longest:.3g}); its rate is {used:.3g}{above if used > bound else ''}; choose a lower one"
            )

    def _used(self, i: int, rate: float) -> float:
        """Block i's rate of learning, of which `rate` is the body's factor."""
        return rate * float(self.optimizers[f"blocks.{i}"].param_groups[0]["lr"])
