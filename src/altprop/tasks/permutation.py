"""The protocol's own order of the training samples: the same for every rule, on every machine."""

from hashlib import sha256

import torch
from jaxtyping import Int64
from torch import Tensor


def order(n: int, seed: int, epoch: int) -> Int64[Tensor, "n"]:
    """The permutation of `n` samples for one epoch: a pure function of its three arguments.

    Seed and epoch are hashed together, so that (0, 1) and (1, 0) are unrelated; the generator is torch's on
    the CPU, whatever device trains.
    """
    mixed = sha256(f"altprop order {seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
    return torch.randperm(n, generator=generator)
