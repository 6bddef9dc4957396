"""Black boxes: parts of a net that have no derivative, as hardware has none.

For Hinton's mortal computation (Hinton 2022, arXiv 2212.13345, section 8): what the box does is not known to whoever
trains it, so that only rules that never look into it, or through it, can.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from altprop.errors import UsageError


class BlackBox(nn.Module):
    """`fn(x)` without a derivative: asking for one raises.

    Arguments:
        fn: from a tensor to one of the same shape: quantised, noisy, looked up in a table.
        straight_through: whether backprop may take the box for the identity (Bengio et al. 2013, arXiv 1308.3432).

    Raises UsageError if fn changes the shape.
    """

    def __init__(self, fn: Callable[[Tensor], Tensor], *, straight_through: bool = False) -> None:
        super().__init__()
        self.fn, self.closed = fn, not straight_through

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out = self.fn(x.detach())
        if out.shape != x.shape:
            raise UsageError(
                f"a black box got {tuple(x.shape)} and made {tuple(out.shape)} of it; its function must keep the shape"
            )
        if not self.closed:
            return x + (out - x).detach()
        opened: Tensor = _Closed.apply(x, out)  # type: ignore[no-untyped-call]
        return opened


class _Closed(torch.autograd.Function):
    """The box's output, tied to its input, so that a derivative through it is refused and not taken for zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor) -> Tensor:
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise UsageError(
            "a derivative was asked for through a black box, which has none; train this net with a rule that takes no "
            "derivative through a block, or give the box straight_through=True"
        )


def black_box(fn: Callable[[Tensor], Tensor], *, straight_through: bool = False) -> nn.Module:
    """A block (or a block's activation) that is a black box; see `BlackBox`."""
    return BlackBox(fn, straight_through=straight_through)


def quantised(levels: int, low: float = 0.0, high: float = 4.0) -> Callable[[Tensor], Tensor]:
    """Rounds to one of so many values between low and high."""
    if levels < 2 or not low < high:
        raise UsageError(f"quantised({levels}, {low}, {high}): give at least two levels, and low below high")
    step = (high - low) / (levels - 1)
    return lambda x: ((x - low) / step).round().clamp(0, levels - 1) * step + low


def noisy(strength: float, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Adds normal noise, `strength` times the root mean square of all values, anew in every call."""

    def fn(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        return x + strength * x.square().mean().sqrt() * noise

    return fn


def distorted(strength: float, units: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Another gain and offset for each unit, drawn once, as no two copies of analogue hardware are alike.

    Gains are log-normal, exp(strength N(0, 1)); offsets are strength N(0, 1).
    """
    gain = torch.randn(units, generator=generator).mul(strength).exp()
    offset = strength * torch.randn(units, generator=generator)
    return lambda x: x * gain.to(x) + offset.to(x)
