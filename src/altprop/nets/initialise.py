"""Fill weights from a generator that is passed in: the global random state is never read."""

import math

import torch
from torch import nn

from altprop.errors import UsageError

GAINS = {"kaiming": math.sqrt(2.0), "lecun": 1.0, "uniform": 1.0 / math.sqrt(3.0)}
"""Standard deviation of a weight times sqrt(fan_in).

kaiming: He et al. 2015 (arXiv 1502.01852), for ReLU. lecun: N(0, 1/fan_in), for linear and tanh units.
uniform: U(-1, 1)/sqrt(fan_in), what torch.nn.Linear does by itself.
"""


@torch.no_grad()
def initialise(layer: nn.Module, kind: str, generator: torch.Generator) -> None:
    """Fill weights as `GAINS` says, in the layer's own dtype; biases are zero ("uniform": U(-1, 1)/sqrt(fan_in)).

    The layer has a `weight` whose first axis are its units (linear, convolutional, `Local`), and perhaps a `bias`.
    """
    if kind not in GAINS:
        raise UsageError(f"init={kind!r} is not known; choose one of {', '.join(GAINS)}")
    weight, bias = layer.get_parameter("weight"), dict(layer.named_parameters(recurse=False)).get("bias")
    bound = 1.0 / math.sqrt(weight[0].numel())
    if kind == "uniform":
        weight.uniform_(-bound, bound, generator=generator)
    else:
        weight.normal_(0.0, GAINS[kind] * bound, generator=generator)
    if bias is not None:
        if kind == "uniform":
            bias.uniform_(-bound, bound, generator=generator)
        else:
            bias.zero_()
