"""The study of a converted residual net, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

from altprop.bench import converted


def test_it_is_published(tmp_path: Path) -> None:
    study = converted.Study("digits", (4, 8), epochs=1, seeds=2, samples=128)
    table = converted.run(study, tmp_path)
    assert list(table["rule"]) == list(study.rules) * 2
    by = table.set_index(["rule", "seed"])
    assert (by.loc["backprop", "angle"] == 0).all()
    assert by.loc["feedback-alignment", "angle"].min() > by.loc["usf", "angle"].max() > 20
    assert by["test"].between(0, 1).all() and (by["seconds"] > 0).all()
    rows = pd.read_csv(tmp_path / "converted" / "rows.csv")
    assert len(rows) == 8 and set(rows["seed"]) == {0, 1}
    text = (tmp_path / "converted.md").read_text()
    assert "| usf | 0.05 |" in text and "128 samples in batches of 64, 2 seed(s)" in text
    behind = 100 * (by.loc["backprop", "test"].mean() - by.loc["usf", "test"].mean())
    assert f"uSF is {behind:.2f} points behind" in text


def test_the_mean_angle_leaves_out_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "angles", lambda model: {"0": 10.0, "3.first": 30.0, "8": 60.0})
    study = converted.Study("digits", (4,), epochs=1, seeds=1, samples=64, rules={"usf": converted.Setting()})
    (row,) = converted.measure(study, Console(quiet=True))
    assert row["angle"] == 45.0


def test_the_net_is_a_residual_one() -> None:
    net = converted.resnet(3, (4, 8, 16), 10)
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    part = net[4]
    assert isinstance(part, converted.Residual) and part(torch.zeros(2, 4, 8, 8)).shape == (2, 8, 4, 4)
    nn.init.zeros_(part.norms[1].weight)  # the branch is silent
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(part(x), part.around(x).relu())
