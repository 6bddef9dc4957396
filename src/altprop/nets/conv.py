"""VGG-like stacks (after Simonyan & Zisserman 2015, arXiv 1409.1556) as rows of blocks."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.initialise import initialise
from altprop.nets.mlp import linear, mlp


def conv(
    shape: Sequence[int],
    channels: Sequence[int],
    *,
    classes: int | None = None,
    act: str = "relu",
    norm: bool = False,
    pooled: Collection[int] | None = None,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """3x3 convolutions, each halved by max-pooling while the image is at least 8 wide; the last block flattens.

    Arguments:
        shape: (channels, height, width) of one image.
        channels: output channels of each block.
        classes: adds a linear output block; left out, the net ends in features (batch, features).
        norm: layer normalisation without parameters before the activation, over channels and places.
        pooled: the blocks that halve the image, where it is not the first ones.
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
        if min(height, width) >= 8 if pooled is None else i in pooled:
            after.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        if i == len(channels) - 1:
            after.append(nn.Flatten())
        normal = nn.GroupNorm(1, n_out, affine=False) if norm else None
        blocks.append(Block(layer, normal, activation(act), nn.Sequential(*after) if after else None))
        n_in = n_out
    if classes is not None:
        blocks.append(Block(linear(n_in * height * width, classes, "lecun", generator)))
    return nn.Sequential(*blocks)


def vgg8b(
    shape: Sequence[int],
    width: int = 128,
    *,
    classes: int | None = None,
    act: str = "leaky-relu",
    norm: bool = True,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """The VGG8b of Nøkland & Eidnes 2019 (arXiv 1901.06656): six convolutions, four of which halve the image, and a
    linear block; an output block is the eighth layer.

    Arguments:
        shape: (channels, height, width) of one image, at least 16 high and wide.
        width: channels of the first convolution; the others have 2, 2, 4, 4 and 4 times as many, the linear block 8.
        classes, act, norm, init, generator: as in `conv`.
    """
    if len(shape) != 3 or min(shape[1:]) < 16 or width < 1:
        raise UsageError(
            f"vgg8b({tuple(shape)}, {width}): it halves images four times; give (channels, height, width) of at least "
            "16x16, and a positive width"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    channels = [width * times for times in (1, 2, 2, 4, 4, 4)]
    body = conv(shape, channels, act=act, norm=norm, pooled=(1, 3, 4, 5), init=init, generator=generator)
    sizes = [channels[-1] * math.prod(side // 16 for side in shape[1:]), 8 * width]
    return nn.Sequential(*body, *mlp(sizes, classes=classes, act=act, norm=norm, init=init, generator=generator))
