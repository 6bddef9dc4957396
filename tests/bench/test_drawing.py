"""The study of drawings by an energy, small, on the digits."""

from pathlib import Path

import pandas as pd

from altprop.bench.drawing import Study, run, upper_half
from altprop.tasks import load

STUDY = Study("digits", 64, epochs=8, samples=100, sweeps=50)


def test_drawings_are_published_and_completing_beats_an_empty_half(tmp_path: Path) -> None:
    table = run(STUDY, tmp_path).set_index("net")
    folder = tmp_path / "energy-drawings"
    assert {path.name for path in folder.iterdir()} == {"drawings.png", "drawings.svg", "rows.csv"}
    assert "| draughtsman | 0.1 |" in (tmp_path / "energy_drawings.md").read_text()
    assert list(pd.read_csv(folder / "rows.csv")["net"]) == ["classifier", "draughtsman", "mean image"]
    assert table.loc["classifier", "accuracy"] > 0.7 and table.loc["draughtsman", "accuracy"] > 0.3
    data = load("digits").flat()
    lower = data.test.batch(slice(0, 100))[0][:, 32:]
    mean = data.train.batch(slice(0, 5000))[0][:, 32:].mean(0)
    assert abs(table.loc["mean image", "squared_error"] - float((mean - lower).square().mean())) < 1e-6
    assert table.loc["draughtsman", "squared_error"] < 0.7 * float(lower.square().mean())


def test_the_upper_half_of_every_channel_is_known() -> None:
    known = upper_half(load("digits").flat()).view(8, 8)
    assert bool(known[:4].all()) and not bool(known[4:].any())
