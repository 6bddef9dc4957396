"""Blocks f(W x + b) whose products are written by hand: which nets are rows of them, and what a delta does to one.

A delta is what stands for the loss's derivative by W x + b.
"""

from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem
from altprop.rules.energy.prediction import SLOPES
from altprop.rules.losses import output_missing

KNOWN = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid)
"""Activations whose slope is known from what they give."""


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the net is not a row of such blocks that ends in an output block, in words."""
    return foreign_block(net) or output_missing(net, problem)


def foreign_block(net: nn.Sequential) -> str | None:
    """The first block that is not f(W x + b), in words."""
    for i, block in enumerate(net):
        bare = not isinstance(block, nets.Block) or (block.norm is None and block.pool is None)
        f = activation_of(block)
        if type(nets.affine(block)) is not nn.Linear or not bare or not (f is None or type(f) in KNOWN):
            names = ", ".join(kind.__name__ for kind in KNOWN)
            return (
                f"block {i} is not a linear layer with one of the activations {names} or none, without norm and "
                "pooling; build the net with altprop.nets.mlp"
            )
    return None


def layer_of(block: nn.Module) -> nn.Linear:
    """The block's linear layer; `foreign_block` has said that there is one."""
    layer = nets.affine(block)
    assert isinstance(layer, nn.Linear)
    return layer


def activation_of(block: nn.Module) -> nn.Module | None:
    return block.activation if isinstance(block, nets.Block) else None


def before_activation(
    block: nn.Module, h: Float[Tensor, "batch outputs"], e: Float[Tensor, "batch outputs"]
) -> Float[Tensor, "batch outputs"]:
    """The delta of an error e at the block's output h."""
    f = activation_of(block)
    return e if f is None else SLOPES[type(f)](f, h, h, e)  # its sign is all that leaky-relu asks of z


def fill_gradients(block: nn.Module, delta: Float[Tensor, "batch outputs"], x: Float[Tensor, "batch inputs"]) -> None:
    """The block's `.grad`: delta times what went in, mean over the batch."""
    layer, delta = layer_of(block), delta / len(delta)
    if layer.weight.requires_grad:
        layer.weight.grad = delta.T @ x
    if layer.bias is not None and layer.bias.requires_grad:
        layer.bias.grad = delta.sum(0)
