"""Goodness: what a forward-forward block makes large on positive samples and small on negative ones.

A goodness maps a block's activities h (rows, ...) to (rows, sites). Most have one site, the whole block; others let
each group of channels or each region of the image decide by itself. The chance that site s is positive is
sigmoid(g_s(h) - theta), with theta = `threshold(shape, bounded)`.

The defaults of theta are the goodness of a block that is undecided. On inputs of mean square 1 and weights of
variance 2 / fan-in, a ReLU unit answers h = sqrt(2) max(0, u), u a unit Gaussian, so over the n units of a site

    sum h^2 = n,    sum |h| = n / sqrt(pi),    sum of the largest share s of h^2 = 2 n (t phi(t) + s),  Phi(-t) = s.

Where activities cannot exceed 1 (tanh and its kin: `bounded`), positives must be able to rise above theta: mean squares
are taken as 1/2, and the largest share of h^2 counts half of what it can reach.

Sum of squares: Hinton 2022 (arXiv 2212.13345), which also minimises it on positives (here `Negative`). Groups of
channels: Papachristodoulou et al. 2024 (arXiv 2312.12668). Only the largest activities: after arXiv 2604.13081.
"""

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import exp, pi, prod, sqrt
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError

Shape = tuple[int, ...]


class Goodness(ABC):
    """A differentiable function of activities, with its threshold."""

    @abstractmethod
    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        """The goodness of each row at each site."""

    @abstractmethod
    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        """What an undecided site has, in a block whose sample has this shape; bounded: activities stay within 1."""

    def refuses(self, shape: Shape) -> str | None:
        """Why this goodness cannot serve a block whose sample has this shape, in words; None if it can."""
        return None


@dataclass(frozen=True)
class SumOfSquares(Goodness):
    """sum h^2 over the block."""

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        return squares(h.flatten(1))

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return prod(shape) * mean_square(bounded)


@dataclass(frozen=True)
class MeanOfSquares(Goodness):
    """mean h^2 over the block."""

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        return squares(h.flatten(1)) / h[0].numel()

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return mean_square(bounded)


@dataclass(frozen=True)
class SumOfAbsolutes(Goodness):
    """sum |h| over the block."""

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        g: Tensor = torch.linalg.vector_norm(h.flatten(1), ord=1, dim=1, keepdim=True)
        return g

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return prod(shape) * sqrt(mean_square(bounded) / pi)


@dataclass(frozen=True)
class Sparse(Goodness):
    """sum h^2 over each row's most active units only.

    share: of the block's units that count; at least one does.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"Sparse(share={self.share}): the share of units that count must lie in (0, 1]")

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        h = h.flatten(1)
        chosen = h.detach().abs().topk(self.count(h.size(1)), dim=1, sorted=False).indices
        return squares(h.gather(1, chosen))

    def count(self, units: int) -> int:
        """How many units count."""
        return max(1, round(self.share * units))

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        units = prod(shape)
        share = self.count(units) / units
        if bounded:
            return 0.5 * share * units
        if share >= 0.5:  # the other half is zeros
            return float(units)
        t = NormalDist().inv_cdf(1 - share)
        return 2 * units * (t * exp(-t * t / 2) / sqrt(2 * pi) + share)


@dataclass(frozen=True)
class ChannelGroups(Goodness):
    """sum h^2 (or its mean) over each group of channels and all of space: one site a group. Units are channels.

    groups: how many, of equal size.
    """

    groups: int = 4
    mean: bool = False

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise UsageError(f"ChannelGroups(groups={self.groups}): give at least one group")

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        h = h.reshape(len(h), self.groups, -1)
        g: Tensor = torch.linalg.vecdot(h, h)
        return g / h.size(2) if self.mean else g

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return mean_square(bounded) * (1 if self.mean else prod(shape) / self.groups)

    def refuses(self, shape: Shape) -> str | None:
        if shape[0] % self.groups == 0:
            return None
        return f"{shape[0]} channels or units cannot be split into {self.groups} equal groups; give a divisor"


@dataclass(frozen=True)
class Regions(Goodness):
    """sum h^2 (or its mean) over each region of the image and all channels: one site a region.

    rows, cols: the grid of regions. Where it does not divide the image, neighbours overlap, and the sum is the mean
    times the units of an average region.
    """

    rows: int = 2
    cols: int = 2
    mean: bool = False

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1:
            raise UsageError(f"Regions(rows={self.rows}, cols={self.cols}): give at least one of each")

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        g = nn.functional.adaptive_avg_pool2d(h.square().mean(1), (self.rows, self.cols)).flatten(1)
        return g if self.mean else g * self.units(tuple(h.shape[1:]))

    def units(self, shape: Shape) -> float:
        """The units of an average region."""
        return prod(shape) / (self.rows * self.cols)

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return mean_square(bounded) * (1 if self.mean else self.units(shape))

    def refuses(self, shape: Shape) -> str | None:
        if len(shape) != 3:
            return f"regions need images (channels, height, width), but the block's output has shape {shape}"
        if shape[1] < self.rows or shape[2] < self.cols:
            return f"{self.rows} x {self.cols} regions do not fit into an image of {shape[1]} x {shape[2]}; give fewer"
        return None


@dataclass(frozen=True)
class Negative(Goodness):
    """Minus another goodness: positives are quiet, negatives active."""

    of: Goodness = SumOfSquares()

    def __call__(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows sites"]:
        return -self.of(h)

    def threshold(self, shape: Shape, bounded: bool = False) -> float:
        return -self.of.threshold(shape, bounded)

    def refuses(self, shape: Shape) -> str | None:
        return self.of.refuses(shape)


GOODNESS: dict[str, type[Goodness]] = {
    "sum-of-squares": SumOfSquares,
    "mean-of-squares": MeanOfSquares,
    "sum-of-absolutes": SumOfAbsolutes,
    "sparse": Sparse,
    "channel-groups": ChannelGroups,
    "regions": Regions,
}
"""By name; "negative-" before a name gives its `Negative`."""


def goodness(what: str | Goodness, **options: Any) -> Goodness:
    """The goodness of a name, with the options of its class; an instance is given back as it is.

    Raises UsageError with the nearest name for an unknown one, and for options that are not its own.
    """
    if isinstance(what, Goodness):
        return what
    kind = what.removeprefix("negative-")
    if kind not in GOODNESS:
        names = [*GOODNESS, *(f"negative-{name}" for name in GOODNESS)]
        near = difflib.get_close_matches(what, names, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(GOODNESS)}, and negative-..."
        raise UsageError(f"goodness={what!r} is not known; {hint}")
    try:
        found = GOODNESS[kind](**options)
    except TypeError:
        raise UsageError(f"goodness={what!r} takes other options than {', '.join(options)}") from None
    return found if kind == what else Negative(found)


def squares(h: Float[Tensor, "rows units"]) -> Float[Tensor, "rows 1"]:
    """sum h^2 in one pass, without a tensor of squares."""
    g: Tensor = torch.linalg.vecdot(h, h)
    return g.unsqueeze(1)


def mean_square(bounded: bool) -> float:
    """h^2 a unit of an undecided block."""
    return 0.5 if bounded else 1.0
