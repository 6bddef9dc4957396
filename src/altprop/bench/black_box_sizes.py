"""Accuracy and the largest stable rate against the number of weights, for plain gradient descent on a distorted net.

What a perturbation says of one weight is drowned in what it says of all others, so that the rate must fall as weights
are added (Werfel, Xie & Seung 2005, doi 10.1162/089976605774320539; Hinton 2022, arXiv 2212.13345, section 8). Rates
are 10^(k/2) for whole k, the notches. A run is stable if it never diverges, and its mean training loss in the last
epoch is below that of guessing, the logarithm of the number of classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from altprop import tasks
from altprop.bench.black_box_methods import FITTED, NODES, SIGNAL, STRAIGHT, WEIGHTS, Method
from altprop.bench.black_box_strengths import COMMAND, carry_all
from altprop.bench.compare import Observer, carry_out, measured, plan
from altprop.bench.contender import Setting, sgd
from altprop.bench.protocol import Budget
from altprop.bench.rates import best_multiples
from altprop.bench.stats import final, interval_of_all
from altprop.bench.train import Plan, Process
from altprop.tasks import Task

OPTIONS: dict[str, dict[str, Any]] = {
    NODES.rule: {"directions": 1, "sigma": 0.1},
    WEIGHTS.rule: {"directions": 1, "sigma": 0.01},
}
LOWEST, HIGHEST = -16, 4
"""The notches between which the search stays."""


@dataclass(frozen=True)
class Sizes:
    """Which box, and nets of how many weights; small ones for tests."""

    task: str = "digits"
    weights: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    epochs: int = 15
    seeds: int = 3
    box: str = "distorted"
    strength: float = 0.5
    first: int = -1
    below: int = 1
    methods: tuple[Method, ...] = (STRAIGHT, FITTED, SIGNAL, NODES, WEIGHTS)

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def plan(self, method: Method, weights: int, notch: int, seed: int) -> Plan:
        data = self.data()
        width = width_of(weights, math.prod(int(n or 0) for n in data.problem.input_shape), data.classes)
        setting = Setting(self.task, data.problem, "black-box", width, 2)
        hardware = {"box": self.box, "strength": self.strength}
        chosen = replace(
            method.contender(setting, where(weights, notch), hardware),
            options=OPTIONS.get(method.rule, {}),
            optimizer={"all": sgd(10 ** (notch / 2))},
            schedule="constant",
        )
        return plan(chosen, setting, data, seed, Budget(self.epochs, curve=False), Process(), COMMAND)


def where(weights: int, notch: int) -> str:
    return f"{weights:,} weights, rate 10^{notch / 2:g}"


def width_of(weights: int, inputs: int, outputs: int) -> int:
    """Of two equal hidden layers that make about so many weights: the root of w^2 + (inputs + outputs) w = weights."""
    half = (inputs + outputs) / 2
    return max(1, round(math.sqrt(half**2 + weights) - half))


def stable(points: pd.DataFrame, classes: int) -> bool:
    """Whether a run, of which these are the points, was stable."""
    losses = points[points["metric"] == "loss"].sort_values("samples")["value"]
    return bool((points["status"] != "diverged").all()) and float(losses.iloc[-1]) < math.log(classes)


def next_notch(found: Mapping[int, bool], first: int) -> int | None:
    """Where to look next for the largest stable notch; None where it lies between two that were tried, or nowhere.

    found: whether what was tried was stable.
    """
    if not found:
        return first
    top = max((notch for notch, good in found.items() if good), default=None)
    following = min(found) - 1 if top is None else top + 1
    return None if following in found or not LOWEST <= following <= HIGHEST else following


Verdicts = dict[tuple[Method, int], dict[int, bool]]
"""By method and seed: which notches were stable, of those that were tried."""


def searched(
    study: Sizes, weights: int, start: Mapping[Method, int], store: Path, observer: Observer | None
) -> Verdicts:
    """The search of every method and seed, from the method's start; all take a step in each round."""
    verdicts: Verdicts = {(method, seed): {} for method in study.methods for seed in range(study.seeds)}
    while True:
        steps = {key: next_notch(found, start[key[0]]) for key, found in verdicts.items()}
        asked = {key: notch for key, notch in steps.items() if notch is not None}
        if not asked:
            return verdicts
        plans = {key: study.plan(key[0], weights, notch, key[1]) for key, notch in asked.items()}
        frame = carry_out(list(plans.values()), store, observer)
        for key, made in plans.items():
            points = measured([made], frame, store)
            verdicts[key][asked[key]] = stable(points, made.task.classes)


def edge(found: Mapping[int, bool]) -> int | None:
    """The largest stable notch; None if none is."""
    return max((notch for notch, good in found.items() if good), default=None)


def runs(study: Sizes, store: Path, observer: Observer | None = None) -> pd.DataFrame:
    """One row a method, number of weights and seed: the largest stable rate (`rate`), and test accuracy (`test`) at the
    rate that was best on validation with the first seed (`best`), among its largest stable one and those `below` it."""
    start = dict.fromkeys(study.methods, study.first)
    rows = []
    for weights in study.weights:
        verdicts = searched(study, weights, start, store, observer)
        start |= {method: top for method in study.methods if (top := edge(verdicts[method, 0])) is not None}
        probes = {
            (method, notch): study.plan(method, weights, notch, 0)
            for method in study.methods
            for notch in range(start[method] - study.below, start[method] + 1)
        }
        best = best_multiples(probes, carry_all(probes.values(), store, observer))
        plans = {
            (method, seed): study.plan(method, weights, best[method], seed)
            for method in study.methods
            for seed in range(study.seeds)
        }
        last = final(carry_all(plans.values(), store, observer)).set_index(["rule", "variant", "predictor", "seed"])
        for (method, seed), made in plans.items():
            top = edge(verdicts[method, seed])
            rows.append({
                "method": method.name, "weights": weights, "seed": seed,
                "rate": math.nan if top is None else 10 ** (top / 2), "best": 10 ** (best[method] / 2),
                "test": last["value"][method.rule, made.contender.variant, method.predictor, seed],
            })  # fmt: skip
    return pd.DataFrame(rows)


def by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a method and number of weights: mean test accuracy with its interval, in per cent; every seed's rate."""
    found = []
    for (method, weights), group in rows.groupby(["method", "weights"], sort=False):
        mean, low, high = interval_of_all(100 * group["test"])
        found.append({"method": method, "weights": weights, "mean": mean, "low": low, "high": high,
                      "rates": tuple(group["rate"]), "best": group["best"].iloc[0]})  # fmt: skip
    return pd.DataFrame(found)
