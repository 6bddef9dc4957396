"""Layers whose error goes down another way: through feedback weights B in the place of the layer's own W.

    forward: z = W x + c        backward, for g = dL/dz:    dx = B^T g,    dW = g x^T,    dc = g,    dB = dW

and likewise for a convolution, whose dx is the transposed convolution of g with B. B has the shape of W. It gets a
gradient, W's own, only where it asks for one: two weights that take the same steps and decay become one another (Kolen
& Pollack 1994, doi 10.1109/ICNN.1994.374486). Each map is one `torch.autograd.Function`: hooks are not needed, and no
product is computed that nobody asks for.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils import parametrize

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
ELEMENTWISE = (*NORMS, nn.PReLU)
"""What has weights and no matrix, so that its exact derivative carries nothing that biology or hardware could not."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor | None, b: Tensor) -> Tensor:
        return F.linear(x, w, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, b = inputs
        down, weight, _, back = ctx.needs_input_grad
        ctx.save_for_backward(x if weight or back else None, b if down else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, b = ctx.saved_tensors
        down, weight, bias, back = ctx.needs_input_grad
        dx = g @ b.to(g.dtype) if down else None  # autocast may have lowered what came down
        rows = g.reshape(-1, g.size(-1))
        dw = rows.t() @ x.to(g.dtype).reshape(-1, x.size(-1)) if weight or back else None
        return dx, dw if weight else None, rows.sum(0) if bias else None, dw if back else None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor | None, b: Tensor, *geometry: Any) -> Tensor:
        return F.conv2d(x, w, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, _, _, b, *ctx.geometry = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(x if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None, b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, b = ctx.saved_tensors
        down, weight, bias, back = ctx.needs_input_grad[:4]
        stride, padding, dilation, groups = ctx.geometry
        x = g.new_empty(1).expand(ctx.shape) if x is None else x.to(g.dtype)  # only its shape is needed for dx
        mask = [down, weight or back, bias]
        dx, dw, db = torch.ops.aten.convolution_backward(
            g, x, b.to(g.dtype), [g.size(1)], stride, padding, dilation, False, (0, 0), groups, mask
        )
        return dx, dw if weight else None, db, dw if back else None, None, None, None, None


def linear(
    x: Float[Tensor, "*batch inputs"],
    w: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
    b: Float[Tensor, "outputs inputs"],
) -> Float[Tensor, "*batch outputs"]:
    """W x + bias; the error goes down through B."""
    z: Tensor = _Linear.apply(x, w, bias, b)  # type: ignore[no-untyped-call]
    return z


def conv2d(
    layer: nn.Conv2d, x: Float[Tensor, "*batch channels height width"], b: Float[Tensor, "outputs inputs rows columns"]
) -> Float[Tensor, "*batch outputs _ _"]:
    """What the layer makes of x; the error goes down through B."""
    if x.dim() == 3:
        return conv2d(layer, x.unsqueeze(0), b).squeeze(0)
    padding = layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":  # as nn.Conv2d does it
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode), (0, 0)
    geometry = (layer.stride, padding, layer.dilation, layer.groups)
    z: Tensor = _Conv2d.apply(x, layer.weight, layer.bias, b, *geometry)  # type: ignore[no-untyped-call]
    return z


def through(
    layer: nn.Linear | nn.Conv2d, x: Float[Tensor, "..."], b: Float[Tensor, "outputs inputs ..."]
) -> Float[Tensor, "..."]:
    """What the layer makes of x; the error goes down through B, in the shape of the layer's weight."""
    return conv2d(layer, x, b) if isinstance(layer, nn.Conv2d) else linear(x, layer.weight, layer.bias, b)


def root_mean_square(weight: Tensor) -> Float[Tensor, ""]:
    """How large the weights are."""
    return weight.detach().square().mean().sqrt()


def random_like(
    weight: Float[Tensor, "outputs inputs ..."], scale: float, generator: torch.Generator
) -> Float[Tensor, "outputs inputs ..."]:
    """B: normal, with `scale` times the root mean square of the weights (1 / sqrt(fan-in) if they are zero)."""
    size = float(root_mean_square(weight)) or weight[0].numel() ** -0.5
    return torch.randn(weight.shape, generator=generator).mul_(scale * size).to(weight)


class FeedbackLinear(nn.Linear):
    """A linear layer whose error goes down through `feedback(weight)`, a tensor in the weight's shape.

    A layer becomes one by `altprop.convert`, and keeps its own parameters. It is asked for its feedback only where an
    error is to go down: not by the first layer of a model, nor under `torch.no_grad()`.
    """

    feedback: nn.Module

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if x.requires_grad and torch.is_grad_enabled():
            return linear(x, self.weight, self.bias, self.feedback(self.weight))
        return super().forward(x)


class FeedbackConv2d(nn.Conv2d):
    """A convolution whose error goes down through `feedback(weight)`; the rest as in `FeedbackLinear`."""

    feedback: nn.Module

    def forward(self, x: Float[Tensor, "*batch channels height width"]) -> Float[Tensor, "*batch outputs _ _"]:
        if x.requires_grad and torch.is_grad_enabled():
            return conv2d(self, x, self.feedback(self.weight))
        return super().forward(x)


LAYERS = (nn.Linear, nn.Conv2d, FeedbackLinear, FeedbackConv2d)


def parts(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module, str]]:
    """Whatever in a module has weights: its name, itself, and why no feedback weights can stand for its own (empty for
    those for which they can). Elementwise weights are left out."""
    own = {key for key, value in module._parameters.items() if value is not None}
    kind = type(module).__name__
    if parametrize.is_parametrized(module):
        yield name, module, f"a {kind}, whose weight is computed from other parameters"
    elif type(module) in LAYERS and "weight" in own:
        yield name, module, ""
    else:
        if own and not isinstance(module, ELEMENTWISE):
            what = "a form of its own" if isinstance(module, LAYERS) else "neither nn.Linear, nn.Conv2d nor a norm"
            yield name, module, f"a {kind}, {what}"
        for key, child in module.named_children():
            yield from parts(child, f"{name}.{key}" if name else key)
