"""The study of drawings, small and on the digits: all rows, files and a goal that is judged."""

from pathlib import Path

import pandas as pd
import pytest

from altprop.bench.generation import FULL, REAL, Study, page, run


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("generation")
    return run(Study(task="digits", width=24, epochs=2, judge_epochs=2, seeds=1, each=10), folder), folder


def test_every_row_is_measured_and_published(published: tuple[pd.DataFrame, Path]) -> None:
    table, folder = published
    assert list(table["what"]) == [
        REAL,
        FULL,
        "one candidate each",
        "straight down",
        "none of its drawings among the negatives",
        "blocks left at random",
        "Gaussian of each class's pixels",
    ]
    assert table[["recognised", "lowest", "spread", "nearest", "frechet"]].notna().all().all()
    assert 0.8 < table["spread"][0] < 1.2 and table["recognised"][0] > 0.8
    written = pd.read_csv(folder / "forward-forward-generation" / "rows.csv")
    assert list(written["what"]) == list(table["what"])
    assert written["judge"].nunique() == 1
    beside = folder / "forward-forward-generation"
    assert {path.name for path in beside.iterdir()} == {"rows.csv", "generated.png", "generated.svg"}
    assert "no number" in (folder / "forward_forward_generation.md").read_text()


def test_the_page_says_whether_the_goals_are_reached(published: tuple[pd.DataFrame, Path]) -> None:
    table = published[0]
    good = table.assign(recognised=0.9, lowest=0.7, spread=0.6)
    for bad in (good.assign(recognised=0.79), good.assign(lowest=0.0), good.assign(spread=0.49)):
        assert "**not reached**" in page(bad, Study(), 0.99)
    assert "**not reached**" not in page(good, Study(), 0.99)
