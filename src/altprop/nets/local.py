"""A stack of locally connected layers, after the nets of Hinton 2022 (arXiv 2212.13345), as a row of blocks."""

from collections.abc import Sequence

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.fields import Local
from altprop.nets.mlp import linear


def local(
    shape: Sequence[int],
    fields: Sequence[Sequence[int]],
    *,
    classes: int | None = None,
    act: str = "relu",
    init: str = "lecun",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Local receptive fields without weight sharing, block upon block; the last block flattens.

    Arguments:
        shape: (channels, height, width) of one image.
        fields: (channels, kernel, stride) of each block, or with a padding as the fourth. Hinton's net for MNIST is
            [(128, 10, 6), (220, 2, 1), (512, 2, 1)]: 4x4, 3x3 and 2x2 places.
        classes: adds a linear output block; left out, the net ends in features (batch, features).
        act, init, generator: as in `mlp`.
    """
    if len(shape) != 3 or not fields or any(len(field) not in (3, 4) for field in fields):
        raise UsageError(
            f"local({tuple(shape)}, {list(fields)}): give (channels, height, width) and a (channels, kernel, stride) "
            "for every block"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    n_in, height, width = shape
    blocks = []
    for i, (n_out, *geometry) in enumerate(fields):
        layer = Local(n_in, n_out, (height, width), *geometry, init=init, generator=generator)
        last = i == len(fields) - 1
        blocks.append(Block(layer, None, activation(act), nn.Flatten() if last else None))
        n_in, (height, width) = n_out, layer.grid
    if classes is not None:
        blocks.append(Block(linear(n_in * height * width, classes, "lecun", generator)))
    return nn.Sequential(*blocks)
