"""A small VGG-like stack (after Simonyan & Zisserman 2015, arXiv 1409.1556) as a row of blocks."""

from collections.abc import Sequence

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.initialise import initialise
from altprop.nets.mlp import linear


def conv(
    shape: Sequence[int],
    channels: Sequence[int],
    *,
    classes: int | None = None,
    act: str = "relu",
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """3x3 convolutions, each halved by max-pooling while the image is at least 8 wide; the last block flattens.

    Arguments:
        shape: (channels, height, width) of one image.
        channels: output channels of each block.
        classes: adds a linear output block; left out, the net ends in features (batch, features).
        act, init, generator: as in `mlp`.
    """
    if len(shape) != 3 or not channels or any(c < 1 for c in channels):
        raise UsageError(
            f"conv({tuple(shape)}, {list(channels)}): give (channels, height, width) and positive channels"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    n_in, height, width = shape
    blocks = []
    for i, n_out in enumerate(channels):
        layer = nn.utils.skip_init(nn.Conv2d, n_in, n_out, 3, padding=1)
        initialise(layer, init, generator)
        after: list[nn.Module] = []
        if min(height, width) >= 8:
            after.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        if i == len(channels) - 1:
            after.append(nn.Flatten())
        blocks.append(Block(layer, None, activation(act), nn.Sequential(*after) if after else None))
        n_in = n_out
    if classes is not None:
        blocks.append(Block(linear(n_in * height * width, classes, "lecun", generator)))
    return nn.Sequential(*blocks)
