"""Competition for patches: who wins, how much, and who never did."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop import nets
from altprop.errors import Diverged, UsageError
from altprop.rule import Metrics
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer

LONG = 4.0
"""How many times their first length weights that settle do not come to."""


def responsibilities(u: Float[Tensor, "batch units ..."], t: float) -> Float[Tensor, "batch units ..."]:
    """softmax(t u) over the units at each place; no less than the cube root of the smallest normal number, or many were
    denormal, and products with them many times slower on CPUs."""
    r = torch.softmax(u.movedim(1, -1) * t, -1)  # along memory where channels are last
    return r.clamp_min_(torch.finfo(u.dtype).tiny ** (1 / 3)).movedim(-1, 1)


def winners(u: Float[Tensor, "batch units ..."], k: int = 1) -> Int[Tensor, "batch k ..."]:
    """Which are the k largest units of each place."""
    return u.argmax(1, keepdim=True) if k == 1 else u.topk(k, 1).indices


def each(name: str, value: float | Sequence[float], layers: Sequence[int]) -> dict[int, float]:
    """One number a block that has a layer, from one for all or as many as there are."""
    values = [float(value)] * len(layers) if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) != len(layers) or min(values) <= 0:
        raise UsageError(
            f"{name}={value}: give one positive number, or one for each of the {len(layers)} blocks with a layer"
        )
    return dict(zip(layers, values, strict=True))


class Competitive(Hebbian):
    """Base of rules whose units compete: it counts who wins, and metrics have "dead", the share of the body's units
    that never won so far."""

    settles: float | None = None
    """The p of sum |w|^p = 1, which units' weights come to, so that much longer ones show too high a rate."""

    def __init__(self, net: nn.Sequential, *args: Any, **options: Any) -> None:
        super().__init__(net, *args, **options)
        self.layers = [i for i, block in enumerate(net) if isinstance(nets.affine(block), Layer)]
        like = next(net.parameters())
        for i in self.layers:
            layer = nets.affine(net[i])
            assert layer is not None
            units = len(layer.get_parameter("weight"))
            self.register_buffer(f"wins_{i}", torch.zeros(units, dtype=like.dtype, device=like.device))
        self._first: dict[int, float] = {}

    def wins(self, i: int) -> Float[Tensor, " units"]:
        """How often each unit of block i has won so far."""
        return self.get_buffer(f"wins_{i}")

    def count(self, i: int, best: Int[Tensor, "batch k ..."]) -> None:
        wins = self.wins(i)
        wins.add_(torch.bincount(best.flatten(), minlength=len(wins)))

    def learn(self, x: Float[Tensor, "batch ..."], y: Int[Tensor, "batch"] | None) -> Metrics:
        metrics = super().learn(x, y)
        never = torch.cat([self.wins(i) == 0 for i in self.layers])
        return {**metrics, "dead": never.to(x.dtype).mean()}

    def adapt(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."], rate: float
    ) -> None:
        if self.settles is not None and self.looking:
            self._judge(i, layer, self.settles, rate)
        super().adapt(i, layer, x, u, rate)

    def _judge(self, i: int, layer: Layer, p: float, rate: float) -> None:
        """Raise Diverged if weights of block i have become much longer than they were at first, and than 1."""
        longest = float(torch.linalg.vector_norm(layer.weight.flatten(1), p, dim=1).max())
        first = self._first.setdefault(i, longest)
        if not longest <= LONG * max(first, 1.0):
            used = rate * float(self.optimizers[f"blocks.{i}"].param_groups[0]["lr"])
            raise Diverged(
                f"{type(self).__name__}: the weights of block {i} grow (the longest has norm {longest:.3g}, at first "
                f"{first:.3g}) and should come to a length of 1; its rate, {used:.3g}, is above what is stable: choose "
                "a lower one"
            )
