"""What a rule looks at now and then while it learns: weights that grew without bound, units that are all dead."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError, warn
from altprop.rule import Rule

ENOUGH = 16
"""Samples that a living block does not leave unanswered, all of them."""


def check_weights(rule: Rule, i: int, layer: nn.Module) -> None:
    """Raise UsageError if weights of block i's layer are no longer numbers."""
    part = rule.optimizers.get(f"blocks.{i}")
    if part is None or not rule.looking:
        return
    weight = layer.get_parameter("weight")
    if not bool(torch.stack(torch.aminmax(weight.detach())).isfinite().all()):
        raise UsageError(
            f"{type(rule).__name__}: the weights of block {i} grew without bound, and are no longer finite; its rate, "
            f"{part.param_groups[0]['lr']:.3g}, is above what is stable: choose a lower one"
        )


def check_units(rule: Rule, i: int, x: Float[Tensor, "batch ..."], h: Float[Tensor, "batch ..."]) -> None:
    """Warn if block i, which is no output block, gives h = 0 for all inputs x of the batch, though they are not."""
    if not rule.looking or len(x) < ENOUGH or (i == len(rule.net) - 1 and nets.output_layer(rule.net) is not None):
        return
    if not bool(h.detach().any()) and bool(x.detach().any()):
        warn(
            f"{type(rule).__name__}: no unit of block {i} answers any input of a batch, so all are dead, and what "
            "follows sees nothing; start from other weights, lower the learning rate, or shift the inputs"
        )
