"""What the tests of the rules with class groups share: nets of every kind, and a batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from altprop import nets

CLASSES = 4
NETS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "mlp": (lambda: nets.mlp([6, 12, 12, 8]), (6,)),
    "conv": (lambda: nets.conv((2, 16, 16), [8, 8, 8, 12]), (2, 16, 16)),
    "local": (lambda: nets.local((2, 8, 8), [(8, 3, 1), (8, 3, 1, 1), (12, 2, 2)]), (2, 8, 8)),
}


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (shape[0],), generator=generator)


def images(h: Tensor, channels: int) -> Tensor:
    """Activities as (batch, channels, places)."""
    return torch.stack([row.reshape(channels, -1) for row in h])
