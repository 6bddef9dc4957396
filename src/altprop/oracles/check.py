"""What an oracle finds: one number, and the bound that it must keep."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """What was compared with what, how far apart they came (or how well it did), and the bound.

    control: whether it is a negative control, a wrong form that must fail in just this way.
    """

    what: str
    found: float
    bound: float
    kind: Literal["at most", "at least"] = "at most"
    control: bool = False

    @property
    def holds(self) -> bool:
        """False for NaN, too."""
        return self.found <= self.bound if self.kind == "at most" else self.found >= self.bound


Oracle = Callable[[], Iterator[Check]]
"""Compares a rule with an independent computation, in float64 where its checks do not say otherwise."""


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors, over the largest size of the expected one."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    found, expected = found.detach(), expected.detach()
    size = float(expected.abs().max()) if expected.numel() else 1.0
    return float((found - expected).abs().max()) / max(size, torch.finfo(expected.dtype).tiny)
