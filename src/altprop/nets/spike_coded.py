"""Nets whose inputs are spikes already and whose weights are positive, for learning from the times of spikes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from altprop.errors import UsageError
from altprop.nets.block import Block
from altprop.nets.mlp import linear
from altprop.nets.neurons import LeakyIntegrateAndFire, MeanOverTime, whole


def spike_coded(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    steps: int = 16,
    generator: torch.Generator | None = None,
    **neuron: Any,
) -> nn.Sequential:
    """A block that turns intensities in [0, 1] into that many spikes a step, evenly spread (the brighter, the earlier);
    blocks of leaky integrate-and-fire neurons; and the mean over time of their spikes. Takes (batch, widths[0]).

    Weights are uniform in [0, 1]. The sums of a block's units lose their mean and are divided by their standard
    deviation at each time step: inhibition that balances what comes in, so that the best driven units fire.

    Arguments:
        widths: input width, then the hidden ones.
        classes: adds a linear output block (initialised "lecun"); left out, the net ends in features.
        steps: time steps.
        generator: source of the weights; a fresh one with seed 0 if left out.
        neuron: the other arguments of `LeakyIntegrateAndFire`.
    """
    if len(widths) < 2 or any(w < 1 for w in widths) or not whole(steps):
        raise UsageError(
            f"spike_coded({list(widths)}, steps={steps}): give the input width and at least one hidden width, all "
            "positive, and a positive whole number of steps"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    blocks = [Block(activation=LeakyIntegrateAndFire(steps, decay=1.0))]
    for a, b in pairwise(widths):
        layer = linear(a, b, "lecun", generator)
        with torch.no_grad():
            layer.weight.uniform_(0.0, 1.0, generator=generator)
        blocks.append(Block(layer, nn.LayerNorm(b, elementwise_affine=False), LeakyIntegrateAndFire(**neuron)))
    blocks.append(Block(pool=MeanOverTime()))
    if classes is not None:
        blocks.append(Block(linear(widths[-1], classes, "lecun", generator)))
    return nn.Sequential(*blocks)
