"""Statistics against hand-made rows whose answers are known."""

import math
from typing import Any

import pandas as pd
import pytest

from altprop.bench import cases, stats
from altprop.errors import UsageError


def rows(*runs: dict[str, Any]) -> pd.DataFrame:
    """Rows from runs given by what matters: `curve` maps samples to the accuracy on every split."""
    found = []
    for number, run in enumerate(runs):
        fixed = {
            "run": number, "task": "toy", "rule": "backprop", "variant": "", "predictor": "", "net": "mlp", "depth": 2,
            "width": 8, "seed": 0, "status": "ok", "reason": "", "epochs": 2,
            "samples_planned": None, "seconds_planned": None,
        "batch_size": 10, "precision": "highest",
            "device": "cpu", "threads": 1, "hyperparameters": "{}", "source_hash": "a", "protocol": "1.0",
            "started": f"2026-01-01T00:00:{number:02d}", "metric": "accuracy",
        } | {name: value for name, value in run.items() if name != "curve"}  # fmt: skip
        curve = run.get("curve", {})
        if not curve:
            found.append(fixed | {"split": None, "samples": None, "value": math.nan, "epoch": None})
        for samples, value in curve.items():
            at = {"samples": samples, "epoch": samples / 100, "train_seconds": samples / 50, "operations": samples * 7}
            for split in ("train", "validation", "test"):
                silent = {"status": "no readout yet"} if value is None else {}
                found.append(fixed | at | {"split": split, "value": math.nan if value is None else value} | silent)
    return pd.DataFrame(found)


BACKPROP: dict[str, Any] = {"curve": {0: 0.1, 100: 0.6, 200: 0.9}}


def test_the_interval_is_student_t_at_95_percent() -> None:
    # By hand: mean 2, standard deviation 1, t(0.975; 2 degrees of freedom) = 4.302653.
    mean, low, high = stats.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert mean - low == pytest.approx(high - mean)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    mean, low, high = stats.interval([0.5, math.nan])
    assert (mean, math.isnan(low), math.isnan(high)) == (0.5, True, True)
    assert all(math.isnan(value) for value in stats.interval([]))


def test_final_is_the_last_point_and_not_the_best() -> None:
    last = stats.final(rows({"curve": {0: 0.1, 200: 0.7, 100: 0.95}}))
    assert last["value"].tolist() == [0.7]


def test_a_run_that_diverged_has_no_final_value() -> None:
    last = stats.final(rows(BACKPROP, {"seed": 1, "status": "diverged", "curve": {0: 0.1, 100: 0.9}}))
    assert last["state"].tolist() == ["ok", "diverged"]
    assert math.isnan(last["value"].iloc[1])


def test_an_unsupported_run_without_points_is_kept() -> None:
    last = stats.final(rows(BACKPROP, {"rule": "other", "status": "unsupported", "reason": "needs more"}))
    assert last.set_index("label").loc["other", "state"] == "unsupported"


def test_targets_lie_between_chance_and_the_median_of_backprop() -> None:
    found = stats.targets(rows(*({"seed": k, "curve": {0: 0.1, 100: top}} for k, top in enumerate((0.8, 0.9, 0.2)))))
    assert found["share"].tolist() == [0.5, 0.8, 0.95]
    assert found["accuracy"].tolist() == pytest.approx([0.1 + share * 0.7 for share in (0.5, 0.8, 0.95)])


def test_a_known_chance_comes_before_the_untrained_accuracy() -> None:
    found = stats.targets(rows(BACKPROP).assign(chance=0.25))
    assert found["accuracy"].iloc[0] == pytest.approx((0.25 + 0.9) / 2)


def test_no_backprop_no_targets() -> None:
    found = rows(BACKPROP | {"rule": "other"})
    assert stats.targets(found).empty
    assert stats.time_to_target(found).empty
    assert stats.performance_profile(found).empty


def test_time_to_target_is_the_first_point_there_and_says_what_was_not_reached() -> None:
    slow = {"rule": "slow", "curve": {0: 0.1, 100: 0.55, 200: 0.8}}
    bad = {"rule": "bad", "status": "diverged", "curve": {0: 0.1, 100: 0.55}}
    times = stats.time_to_target(rows(BACKPROP, slow, bad)).set_index(["label", "share"])
    # Targets: 0.5, 0.74, 0.86.
    assert times.loc["backprop", "samples"].tolist() == [100, 200, 200]
    assert times.loc["backprop", "seconds"].tolist() == [2, 4, 4]
    assert times.loc["backprop", "operations"].tolist() == [700, 1400, 1400]
    assert times.loc["slow", "outcome"].tolist() == ["reached", "reached", "not reached"]
    assert math.isnan(times.loc[("slow", 0.95), "samples"])
    assert times.loc["bad", "outcome"].tolist() == ["reached", "diverged", "diverged"]


def test_the_median_cost_counts_what_was_not_reached_as_last() -> None:
    assert stats.median_cost([3.0, math.nan, 1.0]) == 3.0
    assert math.isnan(stats.median_cost([3.0, math.nan, math.nan]))
    assert math.isnan(stats.median_cost([]))


def test_the_performance_profile_by_hand() -> None:
    # Costs at the three targets: backprop 100, 200, 200; other 100, 100, never. Ratios: 1, 2, 1 and 1, 1, never.
    other = {"rule": "other", "curve": {0: 0.1, 100: 0.75, 200: 0.8}}
    steps = stats.performance_profile(rows(BACKPROP, other))
    found = {name: list(zip(group["tau"], group["share"], strict=True)) for name, group in steps.groupby("label")}
    assert found["backprop"] == [(1.0, pytest.approx(2 / 3)), (2.0, 1.0)]
    assert found["other"] == [(1.0, pytest.approx(2 / 3))]


def test_curves_average_the_seeds_point_by_point_and_skip_what_has_no_readout() -> None:
    found = stats.curves(rows(BACKPROP, {"seed": 1, "curve": {0: None, 100: 0.8, 200: 1.0}}))
    assert found["seeds"].tolist() == [1, 2, 2]
    assert found["mean"].tolist() == pytest.approx([0.1, 0.7, 0.95])
    assert math.isnan(found["low"].iloc[0])


def test_protocols_are_never_mixed() -> None:
    mixed = rows(BACKPROP | {"protocol": "1.9"}, BACKPROP | {"protocol": "1.10"})
    with pytest.raises(UsageError, match=r"1\.9, 1\.10"):
        stats.final(mixed)
    kept, notes = cases.newest(mixed)
    assert kept["protocol"].unique().tolist() == ["1.10"]
    assert notes[0].startswith("9 rows of an older protocol")


def test_older_sources_and_repeated_seeds_are_left_out_and_said() -> None:
    kept, notes = cases.newest(rows(BACKPROP | {"source_hash": "old"}, BACKPROP, BACKPROP))
    assert kept["run"].unique().tolist() == [2]
    assert len(notes) == 2


def test_other_settings_are_other_contenders() -> None:
    tuned = BACKPROP | {"hyperparameters": '{"optimizer": {"lr": 0.1}, "act": "relu"}'}
    plain = BACKPROP | {"hyperparameters": '{"optimizer": {"lr": 0.01}, "act": "relu"}'}
    assert set(cases.arrange(rows(tuned, plain))["label"]) == {"backprop, lr=0.1", "backprop, lr=0.01"}


def test_each_depth_is_a_case_and_a_contender_of_one_shape_is_in_all() -> None:
    arranged = cases.arrange(rows(BACKPROP, BACKPROP | {"depth": 4}, BACKPROP | {"variant": "linear", "depth": 0}))
    found = {case: sorted(group["label"].unique()) for case, group in arranged.groupby("case")}
    both = ["backprop", "backprop · linear"]
    assert found == {"toy · depth 2": both, "toy · depth 4": both}


def test_labels() -> None:
    assert cases.label("a", "b", "c") == "a · b (c)"
    assert cases.label("a", "", "c") == "a (c)"
    assert cases.label("a") == "a"


def test_a_run_without_a_readout_at_its_end_says_so() -> None:
    last = stats.final(rows({"rule": "other", "curve": {0: None, 100: None}}))
    assert last["state"].tolist() == ["no readout yet"]
