"""The study of streams, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest

from altprop.bench import compare, streaming
from altprop.bench.publish import read_rows
from altprop.bench.streaming import Probes, Study, best, beyond, validation_first

STUDY = Study("digits", ("spela",), 16, seeds=2, reach=1)


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)


def test_the_study_is_published(tmp_path: Path) -> None:
    board = streaming.run(STUDY, tmp_path, tmp_path / "s.db")
    assert set(board["label"]) == {"spela (last)", "backprop · linear", "backprop · frozen"}
    folder = tmp_path / "streaming"
    pictures = {f"{name}.{ending}" for name in ("digits-stream", "delays") for ending in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {*pictures, "rows.csv", "runs.csv", "rates.csv"}
    rates = pd.read_csv(folder / "rates.csv")
    assert len(rates) == 9 and rates["accuracy"].between(0.05, 1).all()
    top = rates.sort_values("accuracy").drop_duplicates("contender", keep="last").set_index("contender")
    rows = read_rows(folder)
    assert set(rows["seed"]) == {0, 1} and set(rows["mode"]) == {"stream"} and set(rows["samples"]) >= {0, 500, 1197}
    text = (tmp_path / "streaming.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| spela (last) |"))
    assert f"| two passes | {3.0 ** top.loc['spela', 'power']:.3g} |" in line
    assert "| backprop · linear | **answer** 1.00, blocks.1 2.00 |" in text
    for path in ("digits-stream.png", "delays.png"):
        assert f"](streaming/{path})" in text


def test_rates_are_chosen_on_validation_alone() -> None:
    data = STUDY.data()
    probed = validation_first(data)
    assert probed.train is data.validation and probed.digest != data.digest


def test_the_search_goes_on_past_an_edge() -> None:
    found: Probes = {("a", -1): 0.5, ("a", 0): 0.7, ("a", 1): 0.8, ("b", -1): 0.2, ("b", 0): 0.4, ("b", 1): 0.4}
    assert best(found) == {"a": 1, "b": 0}
    assert beyond(found, "a", 3) == [2] and beyond(found, "b", 3) == [] and beyond(found, "a", 1) == []
    assert beyond(found | {("a", 2): 0.1}, "a", 3) == []
