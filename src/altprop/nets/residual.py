"""Residual perceptrons whose blocks are scaled by depth and width.

Innocenti, Achour & Buckley 2025, "muPC: scaling predictive coding to 100+ layer networks" (arXiv 2505.13124). Weights
are drawn from N(0, 1), and every layer is multiplied by a constant, so that activities and updates keep their size at
any width N and number of blocks L:

    h_1 = W_1 x / sqrt(inputs),    h_l = h_{l-1} + W_l f(h_{l-1}) / sqrt(N L),    scores = W_L h_{L-1} / N

Departure: the output block reads h_{L-1} itself and not f(h_{L-1}), as an output block is a layer and nothing else.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.block import activation


class Scaled(nn.Linear):
    """scale * W x, with the weights drawn from N(0, 1)."""

    def __init__(self, inputs: int, outputs: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(inputs, outputs, bias=False, device="meta")
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(outputs, inputs).normal_(generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


class Residual(nn.Module):
    """x + scale * W f(x)."""

    def __init__(self, layer: nn.Linear, act: nn.Module) -> None:
        super().__init__()
        self.layer, self.act = layer, act

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.layer(self.act(x))
        return h


def residual(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    act: str = "relu",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Blocks of one width, all but the first one residual; takes (batch, widths[0]).

    Arguments:
        widths: input width, then the hidden ones, which are all the same.
        classes: adds an output block; left out, the net ends in features.
        act, generator: as in `mlp`.
    """
    if len(widths) < 2 or min(widths) < 1 or len(set(widths[1:])) > 1:
        raise UsageError(
            f"residual({list(widths)}): give the input width, and hidden widths that are all the same, as every block "
            "adds to what it takes"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    inputs, width, depth = widths[0], widths[1], len(widths) - 1
    scale = 1 / math.sqrt(width * (depth + 1))
    net = nn.Sequential(Scaled(inputs, width, 1 / math.sqrt(inputs), generator))
    for _ in range(depth - 1):
        net.append(Residual(Scaled(width, width, scale, generator), activation(act)))
    if classes is not None:
        net.append(Scaled(width, classes, 1 / width, generator))
    return net
