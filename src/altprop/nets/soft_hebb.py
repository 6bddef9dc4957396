"""The nets of SoftHebb: Moraitis et al. 2022 (arXiv 2107.05747), Journé et al. 2023 (arXiv 2209.11883).

Departures from the authors' code: the width, the kernels and the pools of each block are free; the readout may see the
last block's image averaged to a grid, and the last block then pools no further.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.mlp import linear

RADIUS, RADIUS_MLP = 25.0, 35.0
POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": partial(nn.MaxPool2d, 4, 2, 1),
    "avg": partial(nn.AvgPool2d, 4, 2, 1),
    "half": partial(nn.AvgPool2d, 2, 2),
    "half-max": partial(nn.MaxPool2d, 2, 2),
}


class Triangle(nn.Module):
    """max(0, u - mean of u over units)^power (Coates, Lee & Ng 2011, "An analysis of single-layer networks").

    For (batch, units) and (batch, units, height, width), each place by itself.
    """

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, u: Tensor) -> Tensor:
        if u.dim() == 4:  # in this order of memory, pools take a tenth of the time on CPUs
            u = u.contiguous(memory_format=torch.channels_last)
        above = u - u.mean(1, keepdim=True)
        if self.power == 1.0:
            return above.relu()
        return above.clamp_min(1e-12).pow(self.power)  # at 0 a power below 1 has no derivative


def soft_hebb(
    shape: Sequence[int],
    channels: Sequence[int] = (96, 384, 1536),
    *,
    classes: int | None = None,
    act: str = "triangle",
    kernels: Sequence[int] = (5, 3, 3),
    powers: Sequence[float] = (0.7, 1.4, 1.0),
    pools: Sequence[str] = ("max", "max", "half"),
    grid: int | None = None,
    raw: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Convolutions of normalised images: a batch normalisation before each block. Defaults: the preset for CIFAR.

    Arguments:
        shape: (channels, height, width) of one image.
        channels: of each convolution; widths that grow by a factor of 4 matter, whatever the first one.
        classes: adds a linear output block; left out, the net ends in features (batch, features).
        act: "triangle", or an activation's name as in `mlp`.
        kernels, powers, pools: of each block: an odd kernel, padded by reflection; the power of its triangle; "max" or
            "avg" (4 wide, with stride 2), "half" or "half-max" (2 wide). More than there are channels are left out.
        grid: the last block's image is averaged to grid x grid places instead of being pooled.
        raw: leaves out the first batch normalisation: where most of an image is blank, blank patches stay zero, and
            nobody learns them.
        generator: source of the weights, which are normal, with norms of about 25; a fresh one with seed 0 if left out.
    """
    depth = len(channels)
    if len(shape) != 3 or not 0 < depth <= min(len(kernels), len(powers), len(pools)) or min(channels) < 1:
        raise UsageError(
            f"soft_hebb({tuple(shape)}, {list(channels)}): give (channels, height, width), positive channels, and as "
            "many kernels, powers and pools"
        )
    if unknown := sorted(set(pools) - set(POOLS)):
        raise UsageError(f"soft_hebb(pools={list(pools)}): there is no {unknown[0]!r}; choose from {', '.join(POOLS)}")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    size = min(shape[1:])
    blocks: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise((shape[0], *channels))):
        kernel, last = kernels[i], i == depth - 1
        if kernel % 2 == 0 or kernel // 2 >= size or size < 2:
            raise UsageError(
                f"soft_hebb({tuple(shape)}): a kernel of {kernel} does not suit images of {size} places at block {i}; "
                "take an odd one, at most twice as wide as the image, fewer blocks, or larger images"
            )
        layer = nn.utils.skip_init(
            nn.Conv2d, n_in, n_out, kernel, padding=kernel // 2, padding_mode="reflect", bias=False
        )
        with torch.no_grad():
            layer.weight.normal_(0.0, RADIUS / math.sqrt(layer.weight[0].numel()), generator=generator)
        pool = nn.AdaptiveAvgPool2d(grid) if last and grid else POOLS[pools[i]]()
        size = grid if last and grid else size // 2
        end = nn.Sequential(pool, nn.Flatten()) if last else pool
        if i > 0 or not raw:
            blocks.append(nn.BatchNorm2d(n_in, affine=False))
        blocks.append(Block(layer, None, _activation(act, powers[i]), end))
    if classes is not None:
        blocks.append(Block(linear(channels[-1] * size * size, classes, "lecun", generator)))
    return nn.Sequential(*blocks)


def soft_hebb_mlp(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    act: str = "triangle",
    power: float = 1.0,
    radius: float = RADIUS_MLP,
    positive: bool = True,
    centred: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Linear blocks of the given widths, input first; weights are uniform, above zero, with norms of about `radius`.

    Arguments:
        power: of the triangles. positive: otherwise weights are normal.
        centred: whether each input first loses its mean and is scaled to variance 1.
        The others are those of `soft_hebb`.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise UsageError(f"soft_hebb_mlp({list(widths)}): give the input width and at least one more, all positive")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    blocks: list[nn.Module] = [nn.LayerNorm(widths[0], elementwise_affine=False)] if centred else []
    for n_in, n_out in pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=False)
        with torch.no_grad():
            if positive:
                layer.weight.uniform_(0.0, radius * math.sqrt(3.0 / n_in), generator=generator)
            else:
                layer.weight.normal_(0.0, radius / math.sqrt(n_in), generator=generator)
        blocks.append(Block(layer, None, _activation(act, power)))
    if classes is not None:
        blocks.append(Block(linear(widths[-1], classes, "lecun", generator)))
    return nn.Sequential(*blocks)


def _activation(act: str, power: float) -> nn.Module:
    return Triangle(power) if act == "triangle" else activation(act)
