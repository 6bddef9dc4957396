"""Channels in groups, one group a class: what the rules share in which a block's classes compete for its channels.

The channels of a block (units, where it is no image) are split into as many equal groups as there are classes, in
their order: group c of n channels holds channels c n / C to (c + 1) n / C. Channels come before space, so the groups of
a flattened image are those of its channels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem

Span = tuple[int, int]


def grouped(h: Float[Tensor, "batch ..."], classes: int) -> Float[Tensor, "batch classes values"]:
    """Each class's share of the activities: its channels at all places."""
    groups: Tensor = h.unflatten(1, (classes, -1))
    return groups.flatten(2)


def learning(net: nn.Sequential) -> list[int]:
    """The blocks that have goodness: those with parameters, frozen or not."""
    return [i for i, block in enumerate(net) if next(block.parameters(), None) is not None]


def channels(net: nn.Sequential, shapes: Sequence[tuple[int, ...]], i: int) -> int:
    """How many channels block i has, also where it flattens what a convolution gave."""
    layer = nets.affine(net[i])
    n = getattr(layer, "out_channels", shapes[i][0])
    return n if shapes[i][0] % n == 0 else shapes[i][0]


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the net's channels cannot be split into the problem's classes, in words; None if they can."""
    classes = problem.outputs
    if problem.kind == "regression":
        return "its channels belong to classes, and a regression has none; choose another rule"
    if nets.output_layer(net) is not None:
        return "its channels tell the class, and no output block is needed; build the net without classes"
    blocks = learning(net)
    if not blocks:
        return "it needs a block with parameters (build the net with altprop.nets and a hidden width)"
    shapes = nets.shapes(net, problem.input_shape)
    for i in blocks:
        n = channels(net, shapes, i)
        if n % classes:
            few = f"fewer than the {classes} classes" if n < classes else f"no multiple of the {classes} classes"
            return f"block {i} has {n} channels or units, {few}; give each block a multiple of {classes}"
    return None


@torch.no_grad()
def best_span(goodness: Sequence[Float[Tensor, "batch classes"]], y: Shaped[Tensor, " batch"]) -> Span:
    """The first and the last of the blocks in a row whose summed goodness is right most often; of equals the latest."""
    found, most = (0, 0), -1
    for first in range(len(goodness)):
        total = torch.zeros_like(goodness[first])
        for last in range(first, len(goodness)):
            total = total + goodness[last]
            right = int((total.argmax(1) == y).sum())
            if right >= most:
                found, most = (first, last), right
    return found
