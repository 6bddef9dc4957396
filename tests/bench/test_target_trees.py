"""The study of the tree over class targets, small, on pairs of the digits."""

from functools import cached_property
from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop.bench import compare, target_trees
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import read_rows
from altprop.bench.target_trees import ACCURACY, COMPARISONS, MARGIN, MARGINS, Study, searched
from altprop.rules.forward_only.signal_propagation import SignalPropagation
from altprop.tasks import Task, load, tuples


class Small(Study):
    @cached_property
    def data(self) -> dict[str, Task]:
        return {"digits-pairs": tuples(load("digits"), 2, (6000, 300, 300)).flat()}


STUDY = Small({"digits-pairs": 0.5}, widths=(64, 64), epochs=2, seeds=2)


def test_the_study_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)
    table = target_trees.run(STUDY, tmp_path, tmp_path / "s.db")
    folder = tmp_path / "target-trees"
    assert {path.name for path in folder.iterdir()} == {"rows.csv", "runs.csv", "margins.png", "margins.svg"}
    assert list(table["margin"]) == 2 * list(MARGINS)
    rows = read_rows(folder)
    pd.testing.assert_frame_equal(target_trees.by_margin(rows), table, check_exact=False, atol=1e-4)
    values = rows[rows["samples"].gt(0)].set_index(["seed", "predictor", "split", "metric"])["value"]
    for seed in (0, 1):
        own = table[table["seed"] == seed].set_index("margin")
        assert values[seed, "adaptive", "test", "accuracy"] == values[seed, "adaptive", "test", ACCURACY.format(MARGIN)]
        found = values[seed, "adaptive", "test", COMPARISONS.format(MARGIN)]
        assert own.loc[MARGIN, "share"] == pytest.approx(found / 100) and found > 10
        gap = values[seed, "adaptive", "test", "accuracy"] - values[seed, "nearest", "test", "accuracy"]
        assert own.loc[MARGIN, "difference"] == pytest.approx(100 * gap, abs=1e-4)
        assert own["share"].is_monotonic_increasing and own["share"].nunique() == len(MARGINS)
    text = (tmp_path / "target_trees.md").read_text()
    assert "digits-pairs (100 classes)" in text and "| 50.0 % |" in text
    assert target_trees.run(STUDY, tmp_path, tmp_path / "s.db").equals(table)  # from the store


def test_a_search_that_prunes_nothing_is_option_1_and_costs_more() -> None:
    rule, part = STUDY.plans()[0].contender.build(STUDY.plans()[0].setting, 0), STUDY.data["digits-pairs"].validation
    assert isinstance(rule, SignalPropagation)
    rule.eval()
    found = searched(rule, part, 2.0, torch.device("cpu"))
    with torch.no_grad():
        assert found[ACCURACY] == accuracy(rule.nearest, part, None, torch.device("cpu"))
    assert found[COMPARISONS] == 110 and rule.margin == MARGIN
    assert searched(rule, part, 0.0, torch.device("cpu"))[COMPARISONS] < 40
