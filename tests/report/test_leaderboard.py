"""The leaderboard says what the rows say, in numbers and in words."""

import math

import pandas as pd
import pytest
from rich.console import Console

from altprop.report import leaderboard


@pytest.fixture(scope="module")
def board(one_task: pd.DataFrame) -> pd.DataFrame:
    return leaderboard.frame(one_task).set_index("label")


def test_backprop_is_the_yardstick(board: pd.DataFrame) -> None:
    assert board.loc["backprop", "time"] == board.loc["backprop", "operations"] == 1
    assert board.loc["predictive-coding", "operations"] == pytest.approx(6.0)


def test_the_accuracy_is_the_mean_of_the_last_epoch(board: pd.DataFrame, one_task: pd.DataFrame) -> None:
    rows = one_task.query("rule == 'backprop' and variant == '' and split == 'test' and samples == 500_000")
    assert len(rows) == 3
    assert board.loc["backprop", "test"] == pytest.approx(rows["value"].mean())
    assert board.loc["backprop", "low"] < board.loc["backprop", "test"] < board.loc["backprop", "high"]


def test_the_best_comes_first_and_what_has_no_value_last(board: pd.DataFrame) -> None:
    known = board["test"].dropna()
    assert known.is_monotonic_decreasing
    assert board.index[-1] == "soft-wta · on conv"


def test_what_did_not_finish_is_said_in_words(board: pd.DataFrame) -> None:
    assert board.loc["direct-feedback-alignment", "status"].startswith("1 of 3 seeds diverged: the loss is not finite")
    assert board.loc["direct-feedback-alignment", "seeds"] == 2
    assert board.loc["predictive-coding", "status"] == "1 of 3 seeds running at epoch 3"
    assert board.loc["soft-wta · on conv", "status"] == "unsupported: needs one-dimensional inputs"
    assert math.isnan(board.loc["soft-wta · on conv", "test"])
    assert board.loc["backprop", "status"] == "finished"


def printed(results: pd.DataFrame) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(leaderboard.table(results))
    return captured.get()


def test_the_terminal_shows_every_case_and_contender(results: pd.DataFrame) -> None:
    text = printed(results)
    for words in ("mnist", "cifar10 · depth 8", "forward-forward (energy)", "unsupported", "Student t 95 %"):
        assert words in text


def test_names_are_text_and_not_markup(one_task: pd.DataFrame) -> None:
    assert "[bold]rule" in printed(one_task.replace({"rule": {"soft-wta": "[bold]rule"}}))


def test_an_older_protocol_is_left_out_and_said(one_task: pd.DataFrame) -> None:
    text = printed(pd.concat([one_task, one_task.assign(protocol="0.9", run=one_task["run"] + 1000)]))
    assert f"{len(one_task):,} rows of an older protocol are left out" in text
