"""Statistics over seeds: intervals, final accuracy, targets, time to target, performance profiles.

Every function takes stored rows (bench/store.py), or rows that `cases.arrange` has arranged, and returns plain values
or a DataFrame. Nothing here picks a best epoch: the last one counts. What did not happen is said in words, never in
numbers.

Sources. Student's t: Student (1908), doi:10.1093/biomet/6.1.1. Performance profiles: Dolan and More (2002),
doi:10.1007/s101070100263. Time to a target as the measure of training speed: Dahl et al. (2023), arXiv:2306.07179.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats as distributions

from altprop.bench.cases import STRAIGHT_THROUGH, arrange

CONFIDENCE = 0.95
INTERVAL_METHOD = "mean and Student t 95 % confidence interval over seeds"
#: The ways to count the cost of learning, and the column that holds each.
MEASURES = {"samples": "samples", "seconds": "train_seconds", "operations": "operations"}
#: Targets: how far the way is from chance to backprop.
SHARES = (0.5, 0.8, 0.95)
REACHED = "reached"
NOT_REACHED = "not reached"
ONE_CURVE = ["case", "label", "run", "seed"]


def interval(values: Sequence[float] | np.ndarray | pd.Series[float]) -> tuple[float, float, float]:
    """(mean, low, high): the mean and its Student t 95 % interval, NaNs left out; one value has no interval (NaN)."""
    finite = np.asarray(values, dtype=float)
    finite = finite[~np.isnan(finite)]
    if len(finite) == 0:
        return math.nan, math.nan, math.nan
    mean = float(finite.mean())
    if len(finite) == 1:
        return mean, math.nan, math.nan
    half = float(
        distributions.t.ppf((1 + CONFIDENCE) / 2, len(finite) - 1) * finite.std(ddof=1) / math.sqrt(len(finite))
    )
    return mean, mean - half, mean + half


def paired(one: pd.DataFrame, other: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """`interval` of the differences one - other, seed by seed; both have one row a seed."""
    return interval((one.set_index("seed")[column] - other.set_index("seed")[column]).to_numpy())


def interval_of_all(values: Sequence[float] | np.ndarray | pd.Series[float]) -> tuple[float, float, float]:
    """`interval`, but NaNs if one of the values is: what diverged once has no mean."""
    found = np.asarray(values, dtype=float)
    return (math.nan,) * 3 if np.isnan(found).any() else interval(found)


def accuracies(results: pd.DataFrame, split: str) -> pd.DataFrame:
    """The accuracy points of one split, in the order of training; points without a value (no readout yet) included."""
    rows = arrange(results)
    rows = rows[(rows["metric"] == "accuracy") & (rows["split"] == split)]
    return rows.sort_values([*ONE_CURVE, "samples"], kind="stable")


def final(results: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """One row a case, contender and seed: the last stored point, with `value`, `state` and what it cost.

    The last epoch and not the best one. The value of a run that diverged, or has no readout at its end, is NaN.
    """
    rows = arrange(results)
    entered = rows.sort_values("samples", kind="stable").drop_duplicates(ONE_CURVE, keep="last").sort_index()
    points = accuracies(rows, split).drop_duplicates(ONE_CURVE, keep="last").set_index(ONE_CURVE)["value"]
    last = entered.drop(columns="value").join(points, on=ONE_CURVE)
    last.loc[last["state"].isin(["diverged", "unsupported", "no readout yet"]), "value"] = math.nan
    return last.reset_index(drop=True)


def curves(results: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Mean learning curves: one row a case, contender and point, with `mean`, `low`, `high`, `seeds` and mean costs.

    The k-th evaluation of one seed is averaged with the k-th of the others; the points are the same for all of a run's
    budget but the last one, where the budget is in seconds.
    """
    rows = accuracies(results, split)
    rows = rows[rows["value"].notna() | rows["status"].eq("no readout yet")]
    rows = rows.assign(point=rows.groupby(ONE_CURVE).cumcount())
    rows = rows[rows["value"].notna()]
    keys = ["case", "label", "rule", "point"]
    costs = rows.groupby(keys, sort=False)[["epoch", *MEASURES.values()]].mean()
    spread = [interval(group) for _, group in rows.groupby(keys, sort=False)["value"]]
    costs[["mean", "low", "high"]] = np.array(spread).reshape(-1, 3)
    costs["seeds"] = rows.groupby(keys, sort=False)["value"].count()
    return costs.reset_index()


def targets(results: pd.DataFrame) -> pd.DataFrame:
    """One row a case and share: the validation accuracy at 50, 80 and 95 % of the way from chance to backprop.

    Backprop counts with the median over seeds of its final accuracy. Chance is the column `chance` where rows have it,
    else the median accuracy of all untrained nets. A case without a finished run of backprop has no targets.
    """
    rows = accuracies(results, "validation")
    found = []
    for case, group in rows.groupby("case", sort=False):
        goal = float(final(yardstick(group), "validation")["value"].median())
        known = group["chance"].median() if "chance" in group else math.nan
        chance = float(known if not math.isnan(known) else group.loc[group["samples"] == 0, "value"].median())
        if not math.isnan(goal - chance):
            found += [(case, share, chance + share * (goal - chance), chance, goal) for share in SHARES]
    return pd.DataFrame(found, columns=["case", "share", "accuracy", "chance", "backprop"])


def yardstick(rows: pd.DataFrame) -> pd.DataFrame:
    """Backprop's rows; where there are none, those of backprop with a straight-through estimate."""
    backprop = rows[rows["rule"] == "backprop"]
    plain = backprop[backprop["variant"] == ""]
    return plain if len(plain) else backprop[backprop["variant"] == STRAIGHT_THROUGH]


def time_to_target(results: pd.DataFrame) -> pd.DataFrame:
    """One row a case, contender, seed and share: what it cost to the first stored point at or above the target.

    `outcome` is "reached", or says why not ("not reached", "diverged", "unsupported", ...); the costs are then NaN.
    """
    rows = arrange(results)
    reached = accuracies(rows, "validation").merge(targets(rows), on="case")
    reached = reached[reached["value"] >= reached["accuracy"]].drop_duplicates([*ONE_CURVE, "share"])
    costs = reached.set_index([*ONE_CURVE, "share"])[list(MEASURES.values())]
    asked = final(rows, "validation")[[*ONE_CURVE, "state"]].merge(
        targets(rows)[["case", "share", "accuracy"]], on="case"
    )
    times = asked.join(costs, on=[*ONE_CURVE, "share"])
    times = times.rename(columns={column: measure for measure, column in MEASURES.items()})
    state = times.pop("state")
    times["outcome"] = state.where(state != "ok", NOT_REACHED)
    times.loc[times["samples"].notna(), "outcome"] = REACHED
    return times


def median_cost(costs: Sequence[float] | pd.Series[float]) -> float:
    """The median of a cost over seeds, where NaN (not reached) counts as later than everything; NaN where half miss."""
    ordered = np.sort(np.nan_to_num(np.asarray(costs, dtype=float), nan=math.inf))
    middle = float(ordered[len(ordered) // 2]) if len(ordered) else math.inf
    return middle if math.isfinite(middle) else math.nan


def performance_profile(results: pd.DataFrame, measure: str = "samples") -> pd.DataFrame:
    """One row a contender and step: `share` of its problems that were solved within `tau` times the cheapest cost.

    A problem is a case x target x seed; `problems` says how many the contender entered. Not solved counts as never.
    """
    times = time_to_target(results)
    problem = ["case", "share", "seed"]
    best = times.groupby(problem)[measure].transform("min")
    # A target that the untrained net meets costs nothing: whoever meets it so is the best, at ratio 1.
    times["ratio"] = (times[measure] / best).where(best > 0, times[measure].eq(0).map({True: 1.0, False: math.inf}))
    found = []
    for name, group in times.groupby("label", sort=False):
        ratios = np.sort(group["ratio"][np.isfinite(group["ratio"])])
        solved = [(name, float(tau), (k + 1) / len(group), len(group)) for k, tau in enumerate(ratios)]
        found += solved or [(name, 1.0, 0.0, len(group))]
    steps = pd.DataFrame(found, columns=["label", "tau", "share", "problems"])
    return steps.drop_duplicates(["label", "tau"], keep="last").reset_index(drop=True)
