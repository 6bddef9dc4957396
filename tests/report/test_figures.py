"""The figures are all there, the same each time, and show names as they are."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from altprop.report import figures
from altprop.report.colours import styles


@pytest.fixture(scope="module")
def deep(results: pd.DataFrame) -> pd.DataFrame:
    """Few contenders at three depths, to be quick."""
    rules = ["backprop", "soft-wta"]
    return results[(results["task"] == "cifar10") & results["rule"].isin(rules) & (results["depth"] < 8)]


def test_each_figure_in_each_format(deep: pd.DataFrame, tmp_path: Path) -> None:
    one_depth = {path.name for path in figures.draw(deep[deep["depth"] == 2], tmp_path)}
    assert one_depth == {
        f"cifar10-accuracy-{x}.{f}" for x in ("samples", "seconds", "operations") for f in figures.FORMATS
    }
    assert {path.name for path in tmp_path.iterdir()} == one_depth
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(starts[path.suffix[1:]])


def test_depths_have_figures_of_their_own(deep: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FORMATS", {"svg": figures.FORMATS["svg"]})
    names = {path.stem for path in figures.draw(deep, tmp_path)}
    assert {f"cifar10-mlp-depth-{quantity}" for quantity in ("accuracy", "step", "bytes")} < names
    assert {"cifar10-depth-2-accuracy-samples", "cifar10-depth-4-accuracy-samples"} < names


def test_the_same_rows_give_the_same_bytes(deep: pd.DataFrame, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths = figures.draw(deep[deep["depth"] == 2], tmp_path / name)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_dollars_in_a_name_are_no_mathematics(
    deep: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FORMATS", {"svg": figures.FORMATS["svg"]})
    shown = deep[deep["depth"] == 2].replace({"rule": {"soft-wta": "$\\frac$ <b>"}})
    assert "$\\frac$ &lt;b&gt;" in figures.draw(shown, tmp_path)[0].read_text()


def test_names_at_the_lines_ends_never_overlap() -> None:
    places = figures._spread([(0.90, "a"), (0.91, "b"), (0.99, "c"), (1.0, "d")], 0.05)
    heights = [place for place, _ in places]
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 0.05 - 1e-12
    assert max(heights) <= 1.0


@pytest.mark.parametrize("count", [5, 40])
def test_every_name_stands_inside_the_figure_however_many_there_are(count: int) -> None:
    names = [f"rule-{k}" for k in range(count)]
    figure, axes = figures.empty("many", "samples")
    figures._name(axes, [(name, 0.5) for name in names], styles((name, name) for name in names))
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert boxes[0].y0 >= 0 and boxes[-1].y1 <= figure.bbox.height
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
