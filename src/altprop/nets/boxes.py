"""What a black box may do to activities: round them, look them up, distort them; each is the identity at strength 0.

A distortion and a table are drawn once, for one copy of the hardware: another generator gives another copy.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError

ENTRIES = 1024
"""Of a lookup table."""


class Draws(nn.Module):
    """Generators for random numbers that are new in every call, and the same again after a checkpoint.

    An evaluation draws too, but leaves the count where it was, so that it never changes the course of training; its
    calls all draw what the next one in training will.
    """

    calls: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        generator = torch.Generator().manual_seed(self.seed + int(self.calls))
        if self.training:
            self.calls.add_(1)
        return generator


def quantised(step: float) -> Callable[[Tensor], Tensor]:
    """Rounds to a multiple of `step`."""
    _check(step)
    return lambda x: (x / step).round() * step if step else x


def binary(height: float) -> Callable[[Tensor], Tensor]:
    """Rounds to 0 or `height`."""
    _check(height)
    return lambda x: (x > height / 2).to(x) * height if height else x


class Stochastic(nn.Module):
    """Rounds to a multiple of `step` below or above, at random and anew in every call, with x as the mean."""

    def __init__(self, step: float, seed: int) -> None:
        super().__init__()
        _check(step)
        self.step, self.draws = step, Draws(seed)

    def forward(self, x: Tensor) -> Tensor:
        return rounded_at_random(x, self.step, self.draws()) if self.step else x


def rounded_at_random(x: Float[Tensor, "*any"], step: float, generator: torch.Generator) -> Float[Tensor, "*any"]:
    """floor(x / step + u) step, with u uniform in [0, 1)."""
    return (x / step + torch.rand(x.shape, generator=generator, device="cpu").to(x)).floor() * step


def table(step: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Looks the nearest multiple of `step` up in a table whose entries are off by normal errors of that size.

    What lies below 0, or beyond the table's 1,024 entries, gets the entry at that end.
    """
    _check(step)
    entries = step * (torch.arange(ENTRIES, device="cpu") + torch.randn(ENTRIES, generator=generator, device="cpu"))
    return lambda x: entries.to(x)[(x / step).round().clamp(0, ENTRIES - 1).long()] if step else x


def distorted(strength: float, units: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Another curve for each unit: a gain, an offset and a wave, as no two copies of analogue hardware are alike.

    With s = strength and normal g, o, and p uniform in [1, 3), q in a full turn: x exp(s g) + s o + s sin(p x + q).
    """
    _check(strength)
    gain, offset = torch.randn(2, units, generator=generator, device="cpu").mul_(strength)
    pace, phase = torch.rand(2, units, generator=generator, device="cpu")
    pace, phase = 1 + 2 * pace, 2 * torch.pi * phase
    return lambda x: x * gain.exp().to(x) + offset.to(x) + strength * (pace.to(x) * x + phase.to(x)).sin()


class Copies(nn.Module):
    """One copy of the hardware while it trains, another when it predicts: what weights are worth on the other one."""

    def __init__(self, trained: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.trained, self.other = trained, other

    def forward(self, x: Tensor) -> Tensor:
        return self.trained(x) if self.training else self.other(x)


def _check(strength: float) -> None:
    if not strength >= 0:
        raise UsageError(f"a black box of strength {strength}: give a number that is 0 (does nothing) or larger")
