"""A multi-layer perceptron as a row of blocks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.initialise import initialise


def linear(inputs: int, outputs: int, init: str, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer filled from the generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    initialise(layer, init, generator)
    return layer


def mlp(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    act: str = "relu",
    norm: bool = False,
    bias: bool = True,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Blocks `activation(norm(linear))` of the given widths, input first; takes (batch, widths[0]).

    Arguments:
        widths: input width, then the hidden ones.
        classes: adds a linear output block (initialised "lecun"); left out, the net ends in features.
        act: "relu", "tanh", "gelu", "leaky-relu", "sigmoid", "hard-sigmoid" (clipped to [0, 1]) or "sign".
        norm: layer normalisation without parameters before the activation.
        init: "kaiming", "lecun" or "uniform" (see `initialise`).
        generator: source of the weights; a fresh one with seed 0 if left out.
    """
    if len(widths) < 2 - (classes is not None) or any(w < 1 for w in widths):
        raise UsageError(f"mlp({list(widths)}): give the input width and at least one hidden width, all positive")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    blocks = [
        Block(
            linear(n_in, n_out, init, generator, bias=bias),
            nn.LayerNorm(n_out, elementwise_affine=False) if norm else None,
            activation(act),
        )
        for n_in, n_out in pairwise(widths)
    ]
    if classes is not None:
        blocks.append(Block(linear(widths[-1], classes, "lecun", generator)))
    return nn.Sequential(*blocks)
