"""Residual perceptrons whose blocks are scaled by depth and width.

Innocenti, Achour & Buckley 2025, "muPC: scaling predictive coding to 100+ layer networks" (arXiv 2505.13124). Weights
are drawn from N(0, 1), and every layer is multiplied by a constant, so that activities and updates keep their size at
any width N and number of blocks L:

    h_1 = W_1 x / sqrt(inputs),    h_l = h_{l-1} + W_l f(h_{l-1}) / sqrt(N L),    scores = W_L h_{L-1} / N

Departure: the output block reads h_{L-1} itself and not f(h_{L-1}), as an output block is a layer and nothing else.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation


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
    """Blocks that add to what they take, all but the first one; takes (batch, widths[0]).

    Arguments:
        widths: input width, then the hidden ones; a block whose width is another than the one before adds nothing.
        classes: adds an output block; left out, the net ends in features.
        act, generator: as in `mlp`.
    """
    if len(widths) < 3 or min(widths) < 1:
        raise UsageError(f"residual({list(widths)}): give the input width and at least two hidden widths, all positive")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    net = nn.Sequential(Scaled(widths[0], widths[1], 1 / math.sqrt(widths[0]), generator))
    for n_in, n_out in pairwise(widths[1:]):
        if n_in == n_out:
            net.append(Residual(Scaled(n_in, n_out, 1 / math.sqrt(n_in * len(widths)), generator), activation(act)))
        else:
            net.append(Block(Scaled(n_in, n_out, 1 / math.sqrt(n_in), generator), activation=activation(act)))
    if classes is not None:
        net.append(Scaled(widths[-1], classes, 1 / widths[-1], generator))
    return net
