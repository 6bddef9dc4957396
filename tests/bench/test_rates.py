"""The rate of a row is the best on validation, whichever it is; what diverged loses."""

from dataclasses import replace

import pandas as pd
import pytest

from altprop.bench.ablation import BASE, Study
from altprop.bench.rates import best_multiples

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
