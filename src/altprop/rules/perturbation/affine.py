"""The affine layer that a block begins with: changing its output, moving tangents through it, and its update.

The weights act on the layer's input, so the update that belongs to a delta at the layer's output is the product of the
two. No derivative is taken for that: a layer may round, or be noisy, as long as it is about affine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from altprop import nets
from altprop.nets.fields import Local, windows
from altprop.rules.perturbation.signs import signs

Layer = nn.Linear | nn.Conv2d | Local


def layer_of(block: nn.Module) -> Layer:
    """The block's affine layer; `layers_missing` has said that there is one."""
    layer = nets.affine(block)
    assert isinstance(layer, Layer)
    return layer


def units_of(layer: Layer) -> int:
    """Units, or channels."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def layers_missing(net: nn.Sequential) -> str | None:
    """Why a sample's update is not a product of its own values at affine layers that are known here, in words."""
    if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
        return (
            "batch statistics carry what is done to one sample into the losses of the others; use layer normalisation "
            "(norm=True), or take WeightPerturbation"
        )
    for i, block in enumerate(net):
        layer = nets.affine(block)
        known = set(layer.parameters(recurse=False)) if isinstance(layer, Layer) else set()
        if any(p.requires_grad and p not in known for p in block.parameters()):
            return (
                f"block {i} has trainable parameters outside of a linear, convolutional or locally connected layer at "
                "its beginning; freeze them, cut the model with altprop.blocks(model), or take WeightPerturbation"
            )
        if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
            return f"the convolution of block {i} must be padded with zeros, and by numbers (padding=1, say)"
    return None


@contextmanager
def tapped(layer: Layer, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """When it is called next, the layer gives change(output) in the place of its output."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        handle.remove()  # so that `change` may call the layer
        return change(output)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def directions(
    block: nn.Module, a: Float[Tensor, "batch ..."], generator: torch.Generator
) -> Float[Tensor, "batch ..."]:
    """A sign for every sample and value of the layer's output a, but 0 where a ReLU right behind the layer is at rest.

    What is at rest changes nothing and has the derivative 0: with a sign there, its update would be noise and no more.
    """
    u = signs(a.shape, a, generator)
    if isinstance(block, nets.Block) and block.norm is None and isinstance(block.activation, nn.ReLU):
        u *= a > 0
    return u


def without_bias(layer: Layer, t: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """The layer's linear part: where it takes a tangent to. A layer's own noise is left out."""
    if isinstance(layer, Local):
        return layer.map(t)
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        return nn.functional.conv2d(t, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return nn.functional.linear(t, layer.weight)


@torch.no_grad()
def correlate(layer: Layer, h: Float[Tensor, "batch ..."], delta: Float[Tensor, "batch ..."]) -> None:
    """Fill `.grad` of weight and bias with the sum over the batch of delta (at the output) times h (the input)."""
    if isinstance(layer, Local):
        seen = windows(h, layer.kernel_size, layer.stride, layer.padding)  # (places, inputs, batch)
        delta = delta.permute(2, 3, 1, 0).flatten(0, 1)
        weight, bias = torch.bmm(delta, seen.mT).flatten(0, 1), delta.sum(-1).flatten()
    elif isinstance(layer, nn.Conv2d):
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        weight = conv2d_weight(h, list(layer.weight.shape), delta, *geometry)
        bias = delta.sum((0, 2, 3))
    else:
        delta, h = delta.flatten(0, -2), h.flatten(0, -2)
        weight, bias = delta.T @ h, delta.sum(0)
    for parameter, gradient in ((layer.weight, weight), (layer.bias, bias)):
        if parameter is not None and parameter.requires_grad:
            parameter.grad = gradient
