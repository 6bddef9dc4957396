"""What the tests of rules whose units compete share: a batch, and optimizers whose steps can be counted."""

from functools import partial

import torch
from torch import Tensor

SGD = {"blocks": partial(torch.optim.SGD, lr=0.1), "head": partial(torch.optim.SGD, lr=0.1)}


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    """Inputs in [0, 1] of this shape, and their labels among four classes."""
    g = torch.Generator().manual_seed(1)
    return torch.rand(*shape, generator=g), torch.randint(4, shape[:1], generator=g)
