"""Contenders for a stream: what was chosen for batches, brought to the size of a stream's batches, at constant rates.

A rate is brought there by the rules of thumb for batches: SGD's goes with the batch, Adam's with its square root
(Krizhevsky 2014, arXiv 1404.5997; Malladi et al. 2022, arXiv 2205.10782). On top of that comes a multiple for each
contender, chosen on the validation split as a stream (`altprop.bench.streaming`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from altprop.bench.contender import Contender, Optimizer

MULTIPLES: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("mnist", "mlp"): {
        "backprop": 1.0,
        "backprop · linear": 1.0,
        "backprop · frozen": 1.0,
        "signal-propagation": 1.0,
        "forward-forward": 1.0,
        "direct-feedback-alignment": 1.0,
    }
}
"""By task and net, and by contender: the best of 1/3, 1 and 3."""
CHOSEN = "rate of its batch contender, scaled to a batch of one, times {:g}: chosen on validation as a stream, one seed"
UNTUNED = "untuned: rate of its batch contender, scaled to the stream's batch"


def streamed(
    c: Contender, where: tuple[str, str], usual: int, size: int = 1, multiple: float | None = None
) -> Contender:
    """The contender for a stream of batches of `size`; where: the task and the net; usual: the batch size where it has
    none of its own."""
    share = size / (c.batch_size or usual)
    chosen = MULTIPLES.get(where, {}).get(c.label) if multiple is None and size == 1 else multiple
    factor = 1.0 if chosen is None else chosen
    tuning = UNTUNED if chosen is None else CHOSEN.format(chosen)
    return replace(
        c,
        optimizer={part: rescaled(optimizer, share, factor) for part, optimizer in c.optimizer.items()},
        schedule="constant",
        batch_size=size,
        card=replace(c.card, tuning=tuning),
    )


def rescaled(optimizer: Optimizer, share: float, factor: float) -> Optimizer:
    """The optimizer with its rate for batches of a share of the size, times a factor."""
    by = share if optimizer.name == "SGD" else math.sqrt(share)
    return replace(optimizer, arguments={**optimizer.arguments, "lr": optimizer.arguments["lr"] * by * factor})
