"""The angle between feedback weights and the forward weights that they stand for: 90 degrees at random, 0 if equal.

Of a rule whose error comes down block after block: B_l and W_l. Of one whose error goes to each block directly: B_l and
the product of all later weights, through which a linear net would send it; blocks that have pooling or convolutions
behind them have no such product and are left out.
"""

import copy
import math
import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Rule
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.ways import FeedbackConv2d, FeedbackLinear


@torch.no_grad()
def angles(model: nn.Module) -> dict[str, float]:
    """In degrees, by block ("blocks.1"), or by layer of a converted model; empty if it has no feedback weights.

    Nothing is changed: training goes on to the same bits.
    """
    if isinstance(model, Chain):
        state = model.generator.get_state()
        found = {f"blocks.{i}": angle(model.back(i), model.layer(i).weight) for i in model.above}
        model.generator.set_state(state)
        return found
    if isinstance(model, Rule):
        return direct(model)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, FeedbackLinear | FeedbackConv2d)]
    return {name: angle(copy.deepcopy(layer.feedback)(layer.weight), layer.weight) for name, layer in layers}


def direct(rule: Rule) -> dict[str, float]:
    """Of a rule with "feedback_0" or "feedback.0", (outputs, *units of block 0), and so on."""
    found = {}
    for name, b in rule.state_dict().items():
        match = re.fullmatch(r"feedback[_.](\d+)", name)
        if match is not None and (down := downstream(rule.net, int(match[1]))) is not None:
            found[f"blocks.{match[1]}"] = angle(b.flatten(1), down)
    return found


def downstream(net: nn.Sequential, block: int) -> Float[Tensor, "outputs units"] | None:
    """The product of all weights behind a block; None where one of them is no plain linear layer's."""
    layers = [nets.affine(later) for later in list(net)[block + 1 :]]
    pooled = any(isinstance(later, nets.Block) and later.pool is not None for later in list(net)[block + 1 :])
    product = None
    for layer in reversed(layers):
        if type(layer) is not nn.Linear or pooled:
            return None
        product = layer.weight if product is None else product @ layer.weight
    return product


def angle(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """Between two tensors as vectors, in degrees; NaN if one is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    length = float(a.norm() * b.norm())
    cosine = float(a @ b) / length if length > 0 else float("nan")
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine)))) if not math.isnan(cosine) else cosine
