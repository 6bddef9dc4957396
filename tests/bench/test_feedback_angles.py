"""The study of feedback's angles, small, on the digits."""

from pathlib import Path

import pandas as pd

from altprop.bench import feedback_angles
from altprop.report import turning

STUDY = feedback_angles.Study(
    task="digits",
    width=16,
    epochs=1,
    seeds=1,
    looks=2,
    rules=("feedback-alignment",),
    partial=("backprop",),
    depth=2,
    multiples=(0.3, 1.0),
)


def test_the_study(tmp_path: Path) -> None:
    feedback_angles.run(STUDY, tmp_path)
    folder = tmp_path / feedback_angles.FOLDER
    turned = pd.read_csv(folder / "turned.csv")
    assert sorted(turned["block"].unique()) == ["blocks.0", "blocks.1", "blocks.2"]
    last = turned[turned["block"] == "blocks.2"]
    assert (last["update"] < 0.1).all()  # the output block's gradient is the true one
    assert last["weights"].between(50.0, 130.0).all() and last["weights"].nunique() > 1
    assert turned[turned["block"] == "blocks.0"]["weights"].isna().all()  # no error goes below it
    some = pd.read_csv(folder / "some.csv")
    assert some[["blocks", "end"]].to_numpy().tolist() == [[0, "both"], [1, "output"], [1, "input"], [2, "both"]]
    text = (tmp_path / feedback_angles.FILE).read_text()
    assert "| feedback-alignment | blocks.2 |" in text and "| backprop | 1 from the output |" in text
    assert (folder / "turned.png").stat().st_size > 5000 and (folder / "some.svg").exists()


def test_which_blocks_learn() -> None:
    chosen, setting = STUDY.contender("backprop", 2)
    for count, end, expected in ((1, "output", [1, 2]), (1, "input", [0, 2]), (2, "both", [0, 1, 2]), (0, "both", [2])):
        rule = feedback_angles.learning(chosen, setting, 0, count, end)
        assert list(rule.optimizers) == [f"blocks.{i}" for i in expected]


def test_every_rule_and_end_is_drawn(tmp_path: Path) -> None:
    rules = ("direct-feedback-alignment", "feedback-alignment", "backprop")
    rows = [(rule, blocks, end, seed, 0.9) for rule in rules for seed in (0, 1)
            for blocks, end in ((0, "both"), (1, "output"), (1, "input"), (2, "both"))]  # fmt: skip
    turning.draw_some(pd.DataFrame(rows, columns=["rule", "blocks", "end", "seed", "test"]), tmp_path)
    text = (tmp_path / "some.svg").read_text()
    assert all(f"{rule}, from the {end}" in text for rule in rules for end in ("output", "input"))
