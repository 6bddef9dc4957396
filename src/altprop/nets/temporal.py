"""Multi-layer perceptrons of neurons that live in time, as rows of blocks: spiking nets and leaky rate nets."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block, activation
from altprop.nets.mlp import linear
from altprop.nets.neurons import LeakyIntegrateAndFire, LeakyRate, MeanOverTime


def spiking(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    steps: int = 8,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
    **neuron: Any,
) -> nn.Sequential:
    """Blocks of leaky integrate-and-fire neurons, then their mean over time; takes static (batch, widths[0]).

    Arguments:
        widths, classes, init, generator: as in `mlp`; the output block reads the mean over time.
        steps: for which an input is held.
        neuron: the other arguments of `LeakyIntegrateAndFire`.
    """
    return _over_time(widths, classes, lambda: LeakyIntegrateAndFire(steps, **neuron), init, generator)


def rates(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    steps: int = 8,
    rate: float = 0.3,
    act: str = "relu",
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Blocks of leaky rate neurons, then their mean over time: continuous time in Euler's steps; the rest as in
    `spiking` and `LeakyRate`."""
    return _over_time(widths, classes, lambda: LeakyRate(activation(act), steps, rate=rate), init, generator)


def _over_time(
    widths: Sequence[int],
    classes: int | None,
    neuron: Callable[[], nn.Module],
    init: str,
    generator: torch.Generator | None,
) -> nn.Sequential:
    if len(widths) < 2 or any(w < 1 for w in widths):
        raise UsageError(f"widths {list(widths)}: give the input width and at least one hidden width, all positive")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    blocks = [Block(linear(a, b, init, generator), None, neuron()) for a, b in pairwise(widths)]
    blocks.append(Block(pool=MeanOverTime()))
    if classes is not None:
        blocks.append(Block(linear(widths[-1], classes, "lecun", generator)))
    return nn.Sequential(*blocks)
