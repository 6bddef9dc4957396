"""A block in its parts, h -> z = W h + b -> a = f(z) -> pool(a), and the transposed derivative of each part alone.

Products of the layer are written by hand; autograd goes through the norm, the activation and the pooling of one block.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from altprop import nets
from altprop.rule import Problem
from altprop.rules.losses import output_missing

Layer = nn.Linear | nn.Conv2d
POOLS = (nn.Flatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Parts:
    """What a block is made of; `layer` and `pool` may be missing."""

    layer: Layer | None
    norm: nn.Module
    activation: nn.Module
    pool: nn.Module | None

    def drive(self, h: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """z: what the layer gives, or h itself without one."""
        z: Tensor = h if self.layer is None else self.layer(h)
        return z

    def excite(self, z: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """a: the activities before pooling."""
        a: Tensor = self.activation(self.norm(z))
        return a

    def pooled(self, a: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The block's output."""
        h: Tensor = a if self.pool is None else self.pool(a)
        return h

    def unpool(self, a: Float[Tensor, "batch ..."], t: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The transposed derivative of the pooling at a, times t: a maximum goes back to where it came from."""
        if self.pool is None:
            return t
        with torch.enable_grad():
            leaf = a.detach().requires_grad_()
            (back,) = torch.autograd.grad(self.pool(leaf), leaf, t)
        return back

    def pull(self, z: Float[Tensor, "batch ..."], v: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The transposed derivative of all that comes after the layer, at z, times v."""
        if type(self.norm) is type(self.activation) is nn.Identity and self.pool is None:
            return v
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (back,) = torch.autograd.grad(self.pooled(self.excite(leaf)), leaf, v)
        return back

    def fill_gradients(self, h: Float[Tensor, "batch ..."], delta: Float[Tensor, "batch ..."]) -> None:
        """Each parameter's `.grad`: delta at the layer's output times its input h, summed over the batch."""
        assert self.layer is not None
        if self.layer.weight.requires_grad:
            self.layer.weight.grad = correlation(self.layer, h, delta)
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            self.layer.bias.grad = delta.sum([d for d in range(delta.dim()) if d != 1])


def parts_of(block: nn.Module) -> Parts:
    """A block of another kind is all pooling, or all activation."""
    nothing = nn.Identity()
    if isinstance(block, nets.Block):
        layer = block.affine
        assert layer is None or isinstance(layer, Layer)
        return Parts(layer, block.norm or nothing, block.activation or nothing, block.pool)
    if isinstance(block, Layer):
        return Parts(block, nothing, nothing, None)
    return Parts(None, nothing, nothing, block) if isinstance(block, POOLS) else Parts(None, nothing, block, None)


def transposed(
    layer: Layer | None, weight: Float[Tensor, "..."], delta: Float[Tensor, "batch ..."], like: Tensor
) -> Float[Tensor, "batch ..."]:
    """weight^T delta, in the shape of the layer's input `like`; weight stands where the layer's own does."""
    if isinstance(layer, nn.Conv2d):
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        back: Tensor = conv2d_input(list(like.shape), weight, delta, *geometry)
        return back
    return delta @ weight


def correlation(
    layer: Layer | None, h: Float[Tensor, "batch ..."], delta: Float[Tensor, "batch ..."]
) -> Float[Tensor, "..."]:
    """delta h^T summed over the batch (and over the places of a convolution), in the shape of the layer's weight."""
    if isinstance(layer, nn.Conv2d):
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        found: Tensor = conv2d_weight(h, list(layer.weight.shape), delta, *geometry)
        return found
    return delta.T @ h


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why a net does not fall into such parts, in words; None if it does."""
    if (reason := output_missing(net, problem)) is not None:
        return reason
    if any(isinstance(m, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd) for m in net.modules()):
        return (
            "a block must give the same for a sample whenever it is asked, and batch statistics and dropout do not; "
            "use layer normalisation (norm=True), and no dropout"
        )
    if any(isinstance(m, nets.LeakyIntegrateAndFire | nets.LeakyRate | nets.Cell) for m in net.modules()):
        return (
            "neurons that live in time have a state for every time step, and it has a target for one alone; choose "
            "another rule, SignalPropagation for one"
        )
    for i, block in enumerate(net):
        layer = nets.affine(block)
        if layer is not None and not isinstance(layer, Layer):
            return f"the layer of block {i} ({type(layer).__name__}) must be nn.Linear or nn.Conv2d"
        if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
            return f"the convolution of block {i} must be padded with zeros, and by numbers (padding=1, say)"
        own = set() if layer is None else set(layer.parameters())
        if any(p.requires_grad and p not in own for p in block.parameters()):
            return (
                f"block {i} has trainable parameters outside of a linear or convolutional layer at its beginning; "
                "freeze them (requires_grad off), or cut the model with altprop.blocks(model)"
            )
    return None
