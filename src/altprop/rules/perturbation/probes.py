"""Finite differences: the places beside a point where a loss is tried, and its slopes from what was found there."""

from dataclasses import dataclass
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from altprop.errors import UsageError

Tried = TypeVar("Tried", Tensor, list[Tensor])


@dataclass(frozen=True)
class Probes:
    """K = `directions` steps of size `sigma`, each compared with the point itself, or tried both ways (`antithetic`).

    Whatever is tried is in this order: the point, then the K steps; if antithetic, the K steps, then the K steps back.
    """

    sigma: float
    directions: int
    antithetic: bool

    def __post_init__(self) -> None:
        if not self.sigma > 0 or not isinstance(self.directions, int) or self.directions < 1:
            raise UsageError(
                f"sigma={self.sigma}, directions={self.directions}: perturbations need a positive size, and a "
                "whole number of directions, one or more; take sigma=1e-2 and directions=1, say"
            )

    @property
    def tried(self) -> int:
        """How many places are tried."""
        return 2 * self.directions if self.antithetic else 1 + self.directions

    def steps(self, tried: Tried) -> tuple[Tried, Tried]:
        """What is tried at the K steps, and what it is compared with: the K steps back, or the point."""
        if self.antithetic:
            return tried[: self.directions], tried[self.directions :]
        return tried[1:], tried[:1]

    def slopes(self, losses: Float[Tensor, "tried *samples"]) -> Float[Tensor, "directions *samples"]:
        """The loss's slope along each direction."""
        there, back = self.steps(losses)
        return (there - back) / (2 * self.sigma if self.antithetic else self.sigma)

    def middle(self, tried: Float[Tensor, "tried *any"]) -> Float[Tensor, "*any"]:
        """At the point itself; if antithetic, the mean of all places, which differs from it by sigma squared."""
        return tried.mean(0) if self.antithetic else tried[0].clone()  # so that the others can be freed
