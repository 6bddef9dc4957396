"""What the rules share that send a second, modulated activity through the net: a block in its parts, and the error.

A block is a layer (linear, convolutional or local) that drives its units, z = W h, then norm and activation, a = f(z),
then a pooling. These rules compare the activities a of two passes, and take derivatives of the layer alone.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem


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


@torch.no_grad()
def output_error(
    scores: Float[Tensor, "batch outputs"],
    y: Shaped[Tensor, "batch ..."],
    kind: Literal["classification", "regression"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch outputs"]]:
    """The mean loss (cross-entropy, or half the squared error), and each sample's error: softmax(h) - onehot(y), or
    h - y."""
    if kind == "regression":
        e = scores - y
        return 0.5 * e.square().sum(1).mean(), e
    log_p = scores.log_softmax(1)
    loss = nn.functional.nll_loss(log_p, y)
    return loss, log_p.exp_().sub_(nn.functional.one_hot(y, scores.size(1)))


@torch.no_grad()
def projected(e: Float[Tensor, "batch outputs"], way: Float[Tensor, "outputs ..."]) -> Float[Tensor, "batch ..."]:
    """The error on its fixed way to the front of the net."""
    return (e @ way.flatten(1)).view(-1, *way.shape[1:])


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the activities of two passes cannot teach this net, in words; None if they can."""
    output, n = nets.output_layer(net), problem.outputs
    if output is None or output.out_features != n:
        return f"it needs an output block with {n} outputs (build the net with classes={n})"
    if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
        return "batch statistics would mix its two passes; use layer normalisation (norm=True)"
    for i, block in enumerate(net):
        layer = nets.affine(block)
        taught = set() if layer is None else set(layer.parameters())
        if any(p.requires_grad and p not in taught for p in block.parameters()):
            return (
                f"block {i} has trainable parameters outside of a linear, convolutional or local layer, for which it "
                "has no rule; freeze them (requires_grad off) or choose another rule"
            )
    return None
