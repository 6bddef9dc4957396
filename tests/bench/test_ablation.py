"""The ablation: every row is the base with one thing changed, and verdicts follow from paired intervals."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop.bench import ablation, compare
from altprop.bench.ablation import BASE, CHANGES, DIVERGED, HOLDS, NOTHING, OPPOSITE, Change, Study, verdict
from altprop.bench.publish import read_rows
from altprop.bench.rates import best_multiples

DIGITS = Study("digits", width=16)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_each_row_differs_from_the_base_in_one_thing_and_learns(change: Change) -> None:
    one, base = (DIGITS.plan(c, 1.0, c.name, 0, 1) for c in (change, BASE))
    mine, theirs = one.contender.hyperparameters(), base.contender.hyperparameters()
    different = {k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)}
    different |= {"pixels"} if one.task.name != base.task.name else set()
    allowed = [{"options"}, {"options", "label_inputs"}, {"act"}, {"pixels"}]
    assert different in (allowed if change.scale == 1 else [{"options", "optimizer"}])
    rule = one.contender.build(one.setting, 0)
    assert bool(torch.isfinite(rule.step(*one.task.train.batch(slice(0, 32)))["loss"]))


def test_binary_pixels_are_binary() -> None:
    plan = DIGITS.plan(Change("binary pixels", binary=True), 1.0, "", 0, 1)
    assert set(plan.task.train.batch(slice(0, 100))[0].unique().tolist()) == {0.0, 1.0}


def test_a_multiple_changes_the_rate_and_not_the_decay_of_a_step() -> None:
    one, three = (DIGITS.plan(BASE, m, "", 0, 1).contender.optimizer["blocks"].arguments for m in (1.0, 3.0))
    assert three["lr"] == pytest.approx(3 * one["lr"])
    assert three["lr"] * three["weight_decay"] == pytest.approx(one["lr"] * one["weight_decay"])


@pytest.mark.parametrize(
    ("sign", "low", "high", "words"),
    [
        (1, 0.1, 0.2, HOLDS),
        (-1, 0.1, 0.2, OPPOSITE),
        (-1, -0.2, -0.1, HOLDS),
        (0, 0.1, 0.2, "better"),
        (0, -0.2, -0.1, "worse"),
        (1, -0.1, 0.2, NOTHING),
        (1, float("nan"), float("nan"), DIVERGED),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(sign: int, low: float, high: float, words: str) -> None:
    assert verdict(sign, low, high) == words


def test_a_small_study_is_published_and_its_rates_are_the_best_on_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)
    changes = tuple(c for c in CHANGES if c.name in ("uniform negatives", "binary pixels"))
    study = Study("digits", width=16, epochs=1, seeds=2, changes=changes, multiples=(1.0, 1e30))
    table = ablation.run(study, tmp_path, tmp_path / "s.db")
    assert list(dict.fromkeys(table["variant"])) == ["base", *(c.name for c in changes)]
    assert (table.loc[table["variant"] == "base", "difference"] == 0).all()
    folder = tmp_path / "forward-forward-ablation"
    assert {path.name for path in folder.iterdir()} == {
        "differences.png", "differences.svg", "rates", "rows.csv", "runs.csv"
    }  # fmt: skip
    probes = read_rows(folder / "rates")
    assert len(probes["variant"].unique()) == 2 * (1 + len(changes))
    assert best_multiples(study.probes(), probes)["base"] == 1.0
    rows = read_rows(folder)
    base = rows[(rows["variant"] == "base") & (rows["split"] == "test") & (rows["predictor"] == "head")]
    last = base[base["samples"] == base["samples"].max()]["value"]
    shown = table[(table["variant"] == "base") & (table["predictor"] == "head")]["test"].iloc[0]
    assert shown == pytest.approx(100 * last.mean())
    text = (tmp_path / "forward_forward_ablation.md").read_text()
    assert "hard negatives are better (Hinton 2022)" in text and "| uniform negatives |" in text


def test_differences_are_paired_by_seed() -> None:
    columns = ["rule", "net", "status", "reason", "protocol", "started", "source_hash", "task", "metric"]
    common = {**dict.fromkeys(columns, ""), "metric": "accuracy", "status": "ok", "depth": 2, "width": 16, "samples": 9}

    def rows(variant: str, values: list[float]) -> list[dict[str, object]]:
        return [
            {**common, "variant": variant, "seed": seed, "run": f"{variant}{seed}", "predictor": predictor}
            | {"split": split, "value": value, "hyperparameters": "{}"}
            for seed, value in enumerate(values)
            for predictor in ("head", "energy")
            for split in ("train", "test")
        ]

    frame = pd.DataFrame(rows("base", [0.9, 0.5, 0.7]) + rows("other", [0.91, 0.51, 0.71]))
    row = ablation.differences(frame).set_index(["variant", "predictor"]).loc["other", "head"]
    assert row["difference"] == pytest.approx(1.0)
    assert (row["low"], row["high"]) == pytest.approx((1.0, 1.0))
    lost = pd.DataFrame(rows("base", [0.9, 0.5, 0.7]) + rows("other", [0.91, float("nan"), 0.71]))
    row = ablation.differences(lost).set_index(["variant", "predictor"]).loc["other", "head"]
    assert row[["test", "difference", "low", "high"]].isna().all()
