"""A rate of its own for each row of a study: a rate that suits one may not suit another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import pandas as pd

from altprop.bench.contender import Contender, Optimizer
from altprop.bench.evaluate import Scores
from altprop.bench.stats import final
from altprop.bench.train import Plan
from altprop.errors import UsageError

Tuned = tuple[float, list[float]]
"""A multiple of a rate, and the test accuracy of each seed at it."""
Row = TypeVar("Row")
Multiple = TypeVar("Multiple", int, float)


def scaled(optimizer: Optimizer, factor: float) -> Optimizer:
    """The optimizer with its rate multiplied, and its decay divided: a step decays as much as before."""
    arguments = dict(optimizer.arguments)
    changed = {"lr": arguments["lr"] * factor, "weight_decay": arguments.get("weight_decay", 0.0) / factor}
    return replace(optimizer, arguments={**arguments, **changed})


def rated(c: Contender, multiple: float) -> Contender:
    """The contender with all its rates multiplied."""
    return replace(c, optimizer={part: scaled(optimizer, multiple) for part, optimizer in c.optimizer.items()})


def best_multiples(probes: Mapping[tuple[Row, Multiple], Plan], frame: pd.DataFrame) -> dict[Row, Multiple]:
    """For each row the multiple with the best validation accuracy, mean of the predictors; diverged ones lose.

    probes: by row and multiple of the rate, each with a rule and variant of its own; frame: what was measured of them.
    """
    last = final(frame, "validation")
    scores = last.assign(value=last["value"].fillna(0.0)).groupby(["rule", "variant"])["value"].mean()
    best: dict[Row, tuple[float, Multiple]] = {}
    for (row, multiple), plan in probes.items():
        score = float(scores[plan.contender.rule, plan.contender.variant])
        best[row] = max(best.get(row, (-1.0, multiple)), (score, multiple))
    return {row: multiple for row, (_, multiple) in best.items()}


def tuned(taught: Callable[[float, int], Scores], multiples: Sequence[float], seeds: int) -> Tuned:
    """The multiple that is best on validation with the first seed; taught: what comes of a multiple and a seed.

    While the best of several is the lowest or the highest, one beyond it is tried, too.
    """
    found: dict[float, Scores] = {}
    waiting, tried = list(multiples), set(multiples)
    while waiting:
        multiple = waiting.pop(0)
        with suppress(UsageError):  # weights that grow without bound at this rate
            found[multiple] = taught(multiple, 0)
        if not waiting:
            best = max(found, key=lambda multiple: found[multiple].validation)
            waiting = beyond(best, tried)
            tried.update(waiting)
    return best, [found[best].test, *(taught(best, seed).test for seed in range(1, seeds))]


def beyond(best: float, tried: Iterable[float]) -> list[float]:
    """The multiple that is as far past the best as the one before it, if it is at an end of all that were tried."""
    order = sorted(tried)
    if len(order) == 1 or best not in (order[0], order[-1]):
        return []
    before = order[1] if best == order[0] else order[-2]
    return [float(f"{best * best / before:.2g}")]
