"""What the rules share that send a second, modulated activity through the net: a block in its parts.

A block is a layer (linear, convolutional or local) that drives its units, z = W h, then norm and activation, a = f(z),
then a pooling. These rules compare the activities a of two passes, and take derivatives of the layer alone.
"""

from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem
from altprop.rules.losses import output_missing


def driven(block: nn.Module, h: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """z: the output of the block's layer, or h itself where it has none."""
    layer = nets.affine(block)
    z: Tensor = h if layer is None else layer(h)
    return z


def excited(block: nn.Module, z: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """a = f(z): after norm and activation; a block of another kind is all activation."""
    if not isinstance(block, nets.Block):
        a: Tensor = z if nets.affine(block) is block else block(z)
        return a
    for part in (block.norm, block.activation):
        if part is not None:
            z = part(z)
    return z


def pooled(block: nn.Module, a: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """The block's output."""
    if not isinstance(block, nets.Block) or block.pool is None:
        return a
    h: Tensor = block.pool(a)
    return h


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the activities of two passes cannot teach this net, in words; None if they can."""
    if (reason := output_missing(net, problem)) is not None:
        return reason
    if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
        return "batch statistics would mix its two passes; use layer normalisation (norm=True)"
    if any(isinstance(m, nets.LeakyIntegrateAndFire | nets.LeakyRate | nets.Cell) for m in net.modules()):
        return (
            "it compares one activity for each sum of a layer, and neurons that live in time have one at every time "
            "step; choose another rule, SignalPropagation for one"
        )
    for i, block in enumerate(net):
        layer = nets.affine(block)
        taught = set() if layer is None else set(layer.parameters())
        if any(p.requires_grad and p not in taught for p in block.parameters()):
            return (
                f"block {i} has trainable parameters outside of a linear, convolutional or local layer, for which it "
                "has no rule; freeze them (requires_grad off) or choose another rule"
            )
    return None
