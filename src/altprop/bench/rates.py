"""A rate of its own for each row of a study: a rate that suits one may not suit another."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import pandas as pd

from altprop.bench.contender import Optimizer
from altprop.bench.stats import final
from altprop.bench.train import Plan

Row = TypeVar("Row")
Multiple = TypeVar("Multiple", int, float)


def scaled(optimizer: Optimizer, factor: float) -> Optimizer:
    """The optimizer with its rate multiplied, and its decay divided: a step decays as much as before."""
    arguments = dict(optimizer.arguments)
    changed = {"lr": arguments["lr"] * factor, "weight_decay": arguments.get("weight_decay", 0.0) / factor}
    return replace(optimizer, arguments={**arguments, **changed})


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
