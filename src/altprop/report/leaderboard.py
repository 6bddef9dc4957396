"""The leaderboard: one row a contender, the same in the terminal and on the page."""

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from altprop.bench import cases, stats
from altprop.report import words

HEADS = {
    "label": "contender",
    "test": "test accuracy",
    "seeds": "seeds",
    "train": "train\naccuracy",
    "time": "time /\nbackprop's",
    "operations": "operations /\nbackprop's",
    "peak_step_bytes": "peak step\nbytes",
    "parameters": "parameters",
    "status": "status",
}
SPARE = ("parameters", "seeds", "train", "peak_step_bytes", "operations")
"""What a narrow terminal goes without, in this order."""


def frame(results: pd.DataFrame) -> pd.DataFrame:
    """One row a case and contender, best test accuracy first.

    Columns: case, rule, variant, label; test, low, high (accuracy in [0, 1]), seeds (with a value), train; time (of an
    epoch) and operations (of a sample) as ratios to backprop's in the same case; peak_step_bytes; parameters; status.
    """
    key = ["case", "label", "run", "seed"]
    trains = stats.final(results, "train").rename(columns={"value": "train"})[[*key, "train"]]
    tests = stats.final(results, "test").merge(trains, on=key)
    rows = []
    for (case, label), group in tests.groupby(["case", "label"], sort=False):
        finished = group[group["state"] == "ok"]
        counted = group if finished.empty else finished
        mean, low, high = stats.interval(counted["value"])
        rows.append({
            "case": case, "rule": group["rule"].iloc[0], "variant": group["variant"].iloc[0], "label": label,
             "test": mean, "low": low, "high": high,
            "seeds": int(counted["value"].notna().sum()), "train": counted["train"].mean(),
            "time": (counted["train_seconds"] / counted["epoch"].where(counted["epoch"] > 0)).median(),
            "operations": (counted["operations"] / counted["samples"].where(counted["samples"] > 0)).median(),
            "peak_step_bytes": counted["peak_step_bytes"].max(), "parameters": counted["parameters"].max(),
            "status": words.status(group),
        })  # fmt: skip
    board = pd.DataFrame(rows)
    measured = board[board["time"].notna()]
    each = [stats.yardstick(rows).head(1) for _, rows in measured.groupby("case", sort=False)]
    plain = pd.concat([board.head(0), *each]).set_index("case")
    for column in ("time", "operations"):
        board[column] = board[column] / board["case"].map(plain[column])
    order = pd.Categorical(board["case"], board["case"].unique())
    return board.assign(order=order).sort_values(["order", "test"], ascending=[True, False]).drop(columns="order")


def table(results: pd.DataFrame, width: int | None = None) -> Table:
    """The leaderboard for the terminal; with a width, the columns that find no room are left out, and it says so."""
    rows, notes = cases.newest(results)
    board = frame(rows) if not rows.empty else pd.DataFrame()
    shown = list(HEADS)
    out = _table(board, shown, notes)
    for name in SPARE:
        if width is None or _least_width(out) <= width:
            break
        shown.remove(name)
        out = _table(board, shown, [*notes, "more columns in a wider terminal, and on the page"])
    return out


def _table(board: pd.DataFrame, shown: list[str], notes: list[str]) -> Table:
    caption = "\n".join([*notes, f"± {stats.INTERVAL_METHOD}; the last epoch, not the best one"])
    out = Table(box=box.SIMPLE_HEAD, caption=Text(caption), caption_justify="left", title_justify="left")
    for name in shown:
        head, words_ = HEADS[name], name in ("label", "status")
        out.add_column(
            head,
            justify="left" if words_ else "right",
            no_wrap=not words_,
            min_width={"label": 24, "status": 9}.get(name),
        )
    for case, group in board.groupby("case", sort=False) if len(board) else ():
        out.add_row(Text(str(case), style="bold"), *[""] * (len(shown) - 1))
        for row in group.to_dict("records"):
            cells = dict(zip(HEADS, _cells(row), strict=True))
            out.add_row(*[Text(cells[name]) for name in shown])
        out.add_section()
    return out


def _least_width(out: Table) -> int:
    console = Console(width=1000)
    padding = 3 * sum(column.min_width is not None for column in out.columns)  # rich leaves it out there
    return Measurement.get(console, console.options, out).minimum + padding


def _cells(row: dict[Hashable, Any]) -> list[str]:
    half = (float(str(row["high"])) - float(str(row["low"]))) / 2
    accuracy = words.percent(row["test"])
    return [
        str(row["label"]),
        accuracy if math.isnan(half) else f"{accuracy} ± {100 * half:.2f}",
        str(row["seeds"]),
        words.percent(row["train"]),
        words.ratio(row["time"]),
        words.ratio(row["operations"]),
        words.size(row["peak_step_bytes"]),
        words.count(row["parameters"]),
        str(row["status"]),
    ]
