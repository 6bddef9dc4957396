"""A block: the unit of locality. Derivatives may be taken inside one, never through two."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.fields import Local
from altprop.nets.step import Sign

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "leaky-relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "hard-sigmoid": partial(nn.Hardtanh, 0.0, 1.0),
    "sign": Sign,
}


class Block(nn.Module):
    """`pool(activation(norm(affine(x))))`; each of the four may be missing.

    A rule may ask for any of them in its `supports`. Blocks without parameters are allowed.
    """

    def __init__(
        self,
        affine: nn.Module | None = None,
        norm: nn.Module | None = None,
        activation: nn.Module | None = None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.affine = affine
        self.norm = norm
        self.activation = activation
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.affine, self.norm, self.activation, self.pool):
            if part is not None:
                x = part(x)
        return x


def after(block: nn.Module, u: Tensor) -> Tensor:
    """What a block makes of its layer's output u, which stays as it is."""
    return onward((block.norm, block.activation, block.pool), u) if isinstance(block, Block) else u


def onward(parts: Iterable[nn.Module | None], u: Tensor) -> Tensor:
    """What these parts, one after another, make of u; what they would write in place, they write into a copy."""
    for part in parts:
        if part is not None:
            writes = any(getattr(module, "inplace", False) for module in part.modules())
            u = part(u.clone() if writes else u)
    return u


def activation(name: str) -> nn.Module:
    """A fresh activation by its name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"activation={name!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def affine(block: nn.Module) -> nn.Module | None:
    """The linear, convolutional or locally connected layer of a block, if it has one in the sense of `Block`."""
    if isinstance(block, Block):
        return block.affine
    return block if isinstance(block, nn.Linear | nn.Conv2d | Local) else None


def output_layer(net: nn.Sequential) -> nn.Linear | None:
    """The linear layer of the output block (a last block that is linear and nothing else); None without one."""
    if len(net) == 0:
        return None
    last = net[-1]
    if isinstance(last, Block) and any(p is not None for p in (last.norm, last.activation, last.pool)):
        return None
    layer = affine(last)
    return layer if isinstance(layer, nn.Linear) else None


def input_shape(net: nn.Sequential) -> tuple[int | None, ...]:
    """One sample's shape as the first layer takes it; None where it takes any size."""
    layer = next((m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | Local)), None)
    if isinstance(layer, nn.Conv2d):
        return (layer.in_channels, None, None)
    if isinstance(layer, Local):
        return (layer.in_channels, *layer.size)
    if isinstance(layer, nn.Linear) and not any(isinstance(m, nn.Flatten) for m in net[0].modules()):
        return (layer.in_features,)
    raise UsageError(
        "the net's input shape cannot be read off its first block; give problem=Problem(input_shape, outputs)"
    )


@torch.no_grad()
def shapes(net: nn.Sequential, sample: tuple[int | None, ...]) -> list[tuple[int, ...]]:
    """The shape of one sample's output after each block, found by sending zeros through in evaluation mode."""
    if any(size is None for size in sample):
        raise UsageError(f"the input shape {sample} leaves sizes open; give problem=Problem(input_shape, outputs)")
    modes = {module: module.training for module in net.modules()}
    parameter = next(net.parameters(), torch.zeros(()))
    h = torch.zeros(1, *(int(size or 0) for size in sample), device=parameter.device, dtype=parameter.dtype)
    try:
        net.eval()
        found = []
        for i, block in enumerate(net):
            h = _sent(i, block, h)
            found.append(tuple(h.shape[1:]))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found


def _sent(i: int, block: nn.Module, h: Tensor) -> Tensor:
    try:
        out: Tensor = block(h)
    except (RuntimeError, ValueError, IndexError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        hint = "; take a smaller kernel, more padding or larger images" if "ernel size" in said else ""
        raise RuntimeError(f"block {i} does not take {tuple(h.shape[1:])}: {said}{hint}") from error
    return out
