"""Fixed random ways from the output, or from the label, to where blocks learn.

B is N(0, scale^2 / units that it ends in), as the transposed weights of an output layer are at their start.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from altprop import nets
from altprop.rule import Rule


def random_feedback(
    outputs: int, shape: Sequence[int], scale: float, generator: torch.Generator
) -> Float[Tensor, "outputs ..."]:
    """B: from each output to units of this shape."""
    b = torch.randn(outputs, *shape, generator=generator)
    return b.mul_(scale / b[0].numel() ** 0.5)


def feedback_to_blocks(rule: Rule, scale: float) -> dict[str, Float[Tensor, "outputs ..."]]:
    """ "feedback_0", "feedback_1", ...: B to the output of every block that learns, but for the last one."""
    found = {}
    for i, shape in enumerate(nets.shapes(rule.net, rule.problem.input_shape)[:-1]):
        if f"blocks.{i}" in rule.optimizers:
            b = random_feedback(rule.problem.outputs, shape, scale, rule.generator)
            found[f"feedback_{i}"] = b.to(next(rule.net[i].parameters()))
    return found


@torch.no_grad()
def feed_back(e: Float[Tensor, "batch outputs"], b: Float[Tensor, "outputs ..."]) -> Float[Tensor, "batch ..."]:
    """B e of each sample, in the shape of the units."""
    return (e @ b.flatten(1)).view(-1, *b.shape[1:])
