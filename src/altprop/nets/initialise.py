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
def initialise(layer: nn.Linear | nn.Conv2d, kind: str, generator: torch.Generator) -> None:
    """Fill weights as `GAINS` says, in the layer's own dtype; biases are zero ("uniform": U(-1, 1)/sqrt(fan_in))."""
    if kind not in GAINS:
        raise UsageError(f"init={kind!r} is not known; choose one of {', '.join(GAINS)}")
    bound = 1.0 / math.sqrt(layer.weight[0].numel())
    if kind == "uniform":
        layer.weight.uniform_(-bound, bound, generator=generator)
    else:
        layer.weight.normal_(0.0, GAINS[kind] * bound, generator=generator)
    if layer.bias is not None:
        if kind == "uniform":
            layer.bias.uniform_(-bound, bound, generator=generator)
        else:
            layer.bias.zero_()
