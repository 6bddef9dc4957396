"""The table of costs, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest

from altprop.bench import costs
from altprop.errors import UsageError

STUDY = costs.Study("digits", {"mlp": (24, 24)}, epochs=1, seeds=2, batch=32, rounds=2, multiples=(0.1, 1.0))


def test_the_study_is_published(tmp_path: Path) -> None:
    costs.run(STUDY, tmp_path)
    seeds = pd.read_csv(tmp_path / "costs" / "accuracies.csv").set_index(["rule", "seed"])
    first = pd.read_csv(tmp_path / "costs" / "steps.csv").set_index("rule")
    assert set(first.index) >= {*costs.CONTROLS, "local-classifier", "predsim", "direct-feedback-alignment"}
    assert len(seeds) == 2 * len(first)
    assert first.at["backprop", "seconds"] == 1.0 and first.at["backprop", "training_only_bytes"] == 0
    assert (first["seconds_low"] <= first["seconds"]).all() and (first["seconds"] <= first["seconds_high"]).all()
    assert seeds.loc["checkpointed-backprop"].equals(seeds.loc["backprop"])
    assert first.at["local-classifier", "training_only_bytes"] == 2 * 4 * (24 * 10 + 10)
    assert first.at["direct-feedback-alignment", "training_only_bytes"] == 2 * 4 * 24 * 10
    text = (tmp_path / "costs.md").read_text()
    assert "## mlp, 24-24" in text and "| backprop |" in text
    assert sum(line.startswith("- ") for line in text.splitlines()) == len(costs.COLUMNS)


def test_verdicts_compare_the_best_rule_with_the_best_control() -> None:
    columns = ["rule", "test", "seconds", "operations", "peak_bytes", "training_only_bytes"]
    rows = [("backprop", 0.97, 1.0, 100, 100, 0), ("accumulated-backprop", 0.96, 1.2, 100, 40, 0),
            ("predsim", 0.98, 2.0, 200, 50, 8), ("forward-forward", 0.9, 0.5, 100, 90, 0)]  # fmt: skip
    frame = pd.concat([pd.DataFrame(rows, columns=columns).assign(seed=seed) for seed in range(3)])
    frame = frame.assign(seconds_low=frame["seconds"], seconds_high=frame["seconds"])
    noise = frame.assign(test=frame["test"] + 0.02 * (frame["rule"] == "predsim") * (frame["seed"] - 1))
    assert "is no better than" in costs.verdicts(noise)[0]  # 98 % on the mean, from 96 to 100
    lines = costs.verdicts(frame)
    assert lines[0].endswith("predsim (98.00 %), is better than the best of backpropagation and its controls, backprop "
                             "(97.00 %)")  # fmt: skip
    unsure = frame.assign(seconds_high=frame["seconds"] + 0.6 * (frame["rule"] == "forward-forward"))
    assert "forward-forward (0.50), is no better than" in costs.verdicts(unsure)[1]
    assert "forward-forward (0.50), is better than" in lines[1] and "(1.00), is no better than" in lines[2]
    assert "predsim (0.50), is worse than" in lines[3] and "accumulated-backprop (0.40)" in lines[3]
    assert "forward-forward (0), is no better than" in lines[4]


def test_a_part_that_was_never_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no accuracies.csv.*add --parts accuracies"):
        costs.run(STUDY, tmp_path, ("steps",))
