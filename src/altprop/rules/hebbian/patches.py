"""A linear or convolutional layer as K units that see patches: the products that every Hebbian update is made of.

With x a patch (a sample, or what a convolution sees at one place), y what the units give there, and means over all
patches of a batch: <y x^T> in the shape of the weight, and the Gram matrix <y z^T> (K, K). Sums over units are taken on
the Gram matrix, before the patches are met (FastHebb, Lagani et al. 2022, arXiv 2207.03172): no tensor of patches x
units x inputs is ever made.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

Layer = nn.Linear | nn.Conv2d


def product(
    layer: Layer, y: Float[Tensor, "batch units ..."], x: Float[Tensor, "batch ..."]
) -> Float[Tensor, "units ..."]:
    """<y x^T>, in the shape of the layer's weight (with as many units as y has)."""
    if not isinstance(layer, nn.Conv2d):
        return (y.T @ x).div_(len(x))
    shape = [y.shape[1], *layer.weight.shape[1:]]
    found: Tensor = conv2d_weight(
        padded(layer, x), shape, y, layer.stride, _padding(layer), layer.dilation, layer.groups
    )
    return found.div_(count(y))


def gram(y: Float[Tensor, "batch units ..."], z: Float[Tensor, "batch units ..."]) -> Float[Tensor, "units units"]:
    """<y z^T>."""
    rows = as_rows(y)
    return (rows.T @ as_rows(z)).div_(len(rows))


def mixed(g: Float[Tensor, "units units"], weight: Float[Tensor, "units ..."]) -> Float[Tensor, "units ..."]:
    """g W: each unit's weights as a mixture of all units'."""
    return (g @ weight.flatten(1)).view_as(weight)


def scaled(s: Float[Tensor, " units"], weight: Float[Tensor, "units ..."]) -> Float[Tensor, "units ..."]:
    """s_k W_k."""
    return (s.unsqueeze(1) * weight.flatten(1)).view_as(weight)


def respond(
    layer: Layer, x: Float[Tensor, "batch ..."], weight: Float[Tensor, "units ..."]
) -> Float[Tensor, "batch units ..."]:
    """What units with these weights, and no bias, would give in the place of the layer's."""
    if not isinstance(layer, nn.Conv2d):
        return x @ weight.T
    return nn.functional.conv2d(padded(layer, x), weight, None, layer.stride, _padding(layer), layer.dilation)


def patches(layer: Layer, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "patches inputs"]:
    """One row a patch: what no update needs, and what takes kernel^2 times the memory of x."""
    if not isinstance(layer, nn.Conv2d):
        return x
    kernel = tuple(layer.kernel_size)
    columns = nn.functional.unfold(
        padded(layer, x), kernel, tuple(layer.dilation), _padding(layer), tuple(layer.stride)
    )
    return columns.movedim(1, -1).flatten(0, 1)


def power(layer: Layer, x: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """<||x||^2> of the patches: no eigenvalue of <x x^T> is larger."""
    if not isinstance(layer, nn.Conv2d):
        return x.square().mean().mul_(fan_in(layer))
    return respond(layer, x.square(), torch.ones_like(layer.weight[:1])).mean()


def largest_eigenvalue(layer: Layer, x: Float[Tensor, "batch ..."], rounds: int = 30) -> float:
    """Of <x x^T>, by power iteration; never above it."""
    v = torch.randn(layer.weight[:1].shape, generator=torch.Generator().manual_seed(0)).to(layer.weight)
    size = v.norm()
    for _ in range(rounds):
        v = v / size.clamp_min(torch.finfo(v.dtype).tiny)
        v = product(layer, respond(layer, x, v), x)
        size = v.norm()
    return float(size)


def along(v: Float[Tensor, " units"], u: Float[Tensor, "batch units ..."]) -> Tensor:
    """One number a unit, in a shape that broadcasts against u."""
    return v.view(-1, *[1] * (u.dim() - 2))


def as_rows(y: Float[Tensor, "batch units ..."]) -> Float[Tensor, "patches units"]:
    """One row a patch."""
    return y if y.dim() == 2 else y.movedim(1, -1).flatten(0, -2)


def means(y: Float[Tensor, "batch units ..."]) -> Float[Tensor, " units"]:
    """<y>."""
    return y.mean([d for d in range(y.dim()) if d != 1])


def count(y: Float[Tensor, "batch units ..."]) -> int:
    """Patches in the batch."""
    return y.numel() // y.shape[1]


def fan_in(layer: Layer) -> int:
    """Inputs of one unit."""
    return layer.weight[0].numel()


def padded(layer: nn.Conv2d, x: Float[Tensor, "batch channels height width"]) -> Tensor:
    """With its padding as part of the input, where it is not zeros: an update must see the patches that units saw."""
    if layer.padding_mode == "zeros":
        return x
    return nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    return (0, 0) if layer.padding_mode != "zeros" else tuple(int(p) for p in layer.padding)
