"""Labels that stand in the input, and the first layer's response to them.

The label is laid over the input x as a code, and the whole is normalised: a_0 = s (x' + c_y), with x' the input with
zeros where the label stands, and s its scale to mean square 1. The first layer is affine, so that its response is

    A a_0 + b = s (A x' + A c_y) + b

A x' is one product for all labels of an input, A c is one for each class and not for each sample. An input with its
label is never written out.
"""

from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rules.forward_only.activity import TINY

PLACEMENTS = ("overlay", "concatenate", "channel")


class Shared(NamedTuple):
    """What all labels of a batch share: |x'|^2, A x', and A c of each class and of the neutral code (the last one)."""

    energy: Float[Tensor, " batch"]
    product: Float[Tensor, "batch ..."]
    codes: Float[Tensor, "codes ..."]


class Labels(nn.Module):
    """The codes of the classes, laid out as the first layer takes its inputs.

    Arguments:
        placement: "overlay": one-hot over the first entries of the input; "concatenate": one-hot after them (flat
            inputs only); "channel": a fixed random pattern a class (Lee & Song 2023, arXiv 2303.08418), as large as
            one channel of the image and with length 1, in a channel of its own (after the entries of a flat input).
        shape: one input's shape; classes: number of classes.
        strength: the factor of a class's code; neutral: that of the sum of all codes, which stands for no label.
        generator: source of the patterns; like: a tensor of the net's kind and place.

    Raises UsageError where the label does not fit.
    """

    codes: Tensor

    def __init__(
        self,
        placement: str,
        shape: tuple[int, ...],
        classes: int,
        strength: float,
        neutral: float,
        generator: torch.Generator,
        like: Tensor,
    ) -> None:
        super().__init__()
        self.placement, self.shape = placement, shape
        one_hot = torch.eye(classes)
        if placement == "channel":
            size = (1, *shape[1:]) if len(shape) == 3 else shape
            patterns = torch.randn(classes, *size, generator=generator)
            patterns /= patterns.flatten(1).norm(dim=1).view(-1, *[1] * len(size))
            codes = torch.cat([torch.zeros(classes, *shape), patterns], 1)
        elif placement == "concatenate" and len(shape) == 1:
            codes = torch.cat([torch.zeros(classes, *shape), one_hot], 1)
        elif placement == "overlay" and prod(shape) > classes:
            codes = torch.cat([one_hot, torch.zeros(classes, prod(shape) - classes)], 1).view(classes, *shape)
        else:
            raise UsageError(unfit(placement, shape, classes))
        codes = codes.to(like)
        codes = torch.cat([strength * codes, neutral * codes.sum(0, keepdim=True)])
        self.register_buffer("codes", codes, persistent=placement == "channel")  # the others are constants

    @property
    def written(self) -> tuple[int, ...]:
        """The shape of one input with its label, as the first layer takes it."""
        return tuple(self.codes.shape[1:])

    def lay_out(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """x', in the shape `written`."""
        if self.placement == "overlay":
            covered = x.flatten(1).clone()
            covered[:, : len(self.codes) - 1] = 0
            return covered.view(-1, *self.shape)
        x = x.view(-1, *self.shape)
        return torch.cat([x, x.new_zeros(len(x), self.written[0] - self.shape[0], *self.shape[1:])], 1)

    def share(self, layer: nn.Module, x: Float[Tensor, "batch ..."]) -> Shared:
        """The products of the first layer with these inputs and with all codes."""
        laid = self.lay_out(x)
        # One product for both, and so one for the gradient: two would write a matrix as large as the weights twice.
        product, codes = without_bias(layer, torch.cat([laid, self.codes])).split([len(x), len(self.codes)])
        return Shared(laid.flatten(1).square().sum(1), product, codes)

    def through(
        self, layer: nn.Module, shared: Shared, labels: Int64[Tensor, " rows"], *, normalise: bool
    ) -> Float[Tensor, "rows ..."]:
        """The first layer's response; the rows are one or several streams of the batch, one after another."""
        product = shared.product
        streams = shared.codes.index_select(0, labels).view(-1, *product.shape)
        z: Tensor = (streams + product).flatten(0, 1)
        bias = bias_of(layer)
        if not normalise:
            return z if bias is None else z + bias
        codes = self.codes.flatten(1).square().sum(1)
        energy = codes[labels].view(-1, len(product)) + shared.energy
        scale = (prod(self.written) / energy.clamp_min(TINY)).sqrt().view(-1, *[1] * (z.dim() - 1))
        return z * scale if bias is None else torch.addcmul(bias, z, scale)


def unfit(placement: str, shape: tuple[int, ...], classes: int) -> str:
    """Why a label cannot be placed so, in words."""
    if placement == "overlay":
        return (
            f"{classes} classes written over an input of {prod(shape)} entries leave no input; give more features or "
            'placement="concatenate"'
        )
    if placement == "concatenate":
        return f'placement="concatenate" is for flat inputs, and these have shape {shape}; choose "channel"'
    return f"placement={placement!r} is not known; choose one of {', '.join(map(repr, PLACEMENTS))}"


def without_bias(layer: nn.Module, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """A x of an affine layer A x + b."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x.flatten(1), layer.weight)
    if isinstance(layer, nn.Conv2d):
        return nn.functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert isinstance(layer, nets.Local)
    return layer.map(x)


def bias_of(layer: nn.Module) -> Tensor | None:
    """b of an affine layer, in a shape that is added to its product."""
    bias = layer.bias
    if not isinstance(bias, Tensor) or isinstance(layer, nn.Linear):
        return bias if isinstance(bias, Tensor) else None
    return bias.view(*layer.grid, -1).permute(2, 0, 1) if isinstance(layer, nets.Local) else bias.view(-1, 1, 1)
