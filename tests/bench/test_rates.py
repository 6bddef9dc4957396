"""The rate of a row is the best on validation, whichever it is; what diverged loses."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from altprop import nets
from altprop.bench import evaluate as evaluating
from altprop.bench.ablation import BASE, Study
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import Scores
from altprop.bench.rates import best_multiples, rated, tuned
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.reference.backprop import Backprop
from altprop.tasks import load

STUDY = Study("digits", width=16)
COMMON = {
    "case": "c",
    "rule": "forward-forward",
    "state": "ok",
    "status": "ok",
    "metric": "accuracy",
    "samples": 10,
    "seed": 0,
}
COMMON |= {"task": "digits", "net": "mlp", "depth": 2, "width": 16, "hyperparameters": "{}", "epochs": 1}


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({0.1: (0.9, 0.8), 1.0: (0.7, 0.7), 3.0: (0.2, 0.3)}, 0.1),
        ({0.1: (0.1, 0.1), 1.0: (0.7, 0.7), 3.0: (0.8, 0.65)}, 3.0),
        ({0.1: (0.1, 0.1), 1.0: (0.4, 0.4), 3.0: (0.99, float("nan"))}, 3.0),
        ({0.1: (0.5, 0.5), 1.0: (0.4, 0.4), 3.0: (0.9, float("nan"))}, 0.1),
    ],
)
def test_the_best_multiple_has_the_highest_mean_on_validation(values: dict[float, tuple], best: float) -> None:
    plan = STUDY.plan(BASE, 1.0, "", 0, 1)
    probes = {("row", m): replace(plan, contender=replace(plan.contender, variant=f"row at {m}")) for m in values}
    rows = [
        {**COMMON, "variant": f"row at {m}", "label": f"r · row at {m} ({predictor})", "run": f"{m}", "split": split}
        | {"predictor": predictor, "value": value if split == "validation" else 1 - value}
        for m, pair in values.items()
        for predictor, value in zip(("energy", "head"), pair, strict=True)
        for split in ("validation", "test")
    ]
    assert best_multiples(probes, pd.DataFrame(rows)) == {"row": best}


def test_what_validation_prefers_is_tested_with_every_seed() -> None:
    called = []

    def taught(multiple: float, seed: int) -> Scores:
        called.append((multiple, seed))
        if multiple == 3.0:
            raise UsageError("weights grow without bound")
        return Scores(validation=0.9 - abs(multiple - 0.1), test=multiple + 0.01 * seed)

    assert tuned(taught, (1.0, 0.1, 0.05, 3.0), 3) == (0.1, pytest.approx([0.1, 0.11, 0.12]))
    assert called == [(1.0, 0), (0.1, 0), (0.05, 0), (3.0, 0), (0.1, 1), (0.1, 2)]


@pytest.mark.parametrize(
    ("peak", "tried"),
    [(0.9, [1.0, 0.5, 2.0]), (7.0, [1.0, 0.5, 2.0, 4.0, 8.0, 16.0]), (0.2, [1.0, 0.5, 2.0, 0.25, 0.12])],
)
def test_rates_go_on_past_an_end_that_is_best(peak: float, tried: list[float]) -> None:
    called = []

    def taught(multiple: float, seed: int) -> Scores:
        called.append(multiple)
        if multiple > 10:
            raise UsageError("weights grow without bound")
        return Scores(validation=-abs(math.log(multiple / peak)), test=0.0)

    best, _ = tuned(taught, (1.0, 0.5, 2.0), 1)
    assert called == tried and best == min(tried, key=lambda m: abs(math.log(m / peak)))


def test_one_rate_is_taken_as_it_is() -> None:
    assert tuned(lambda *_: Scores(validation=0.5, test=0.4), (1.0,), 2) == (1.0, [0.4, 0.4])


def test_all_rates_of_a_contender_are_multiplied() -> None:
    chosen = contender("forward-forward", Setting("digits", Problem((64,), 10), "mlp", 16, 2))
    before, after = ({part: o.arguments["lr"] for part, o in c.optimizer.items()} for c in (chosen, rated(chosen, 0.5)))
    assert after == {part: 0.5 * rate for part, rate in before.items()} and len(after) == 2


def test_the_predictor_that_is_best_on_validation_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    task, rule = load("digits").flat(), Backprop(nets.mlp([64, 8], classes=10))
    found = {"a": (0.9, 0.5), "b": (0.8, 0.99), "c": (float("nan"), 1.0)}
    monkeypatch.setattr(Backprop, "predictors", lambda self: {name: name for name in found})
    monkeypatch.setattr(evaluating, "accuracy", lambda name, split, *_: found[name][split is task.test])
    assert evaluating.scores(rule, task) == Scores(0.9, 0.5)
