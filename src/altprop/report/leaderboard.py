"""The leaderboard: one row a contender, the same in the terminal and on the page."""

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from altprop.bench import cases, stats
from altprop.report import words

HEADS = {
    "label": "contender",
    "test": "test accuracy",
    "seeds": "seeds",
    "train": "train accuracy",
    "time": "time / backprop's",
    "operations": "operations / backprop's",
    "peak_step_bytes": "peak step bytes",
    "parameters": "parameters",
    "status": "status",
}


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
    plain = board[(board["rule"] == "backprop") & (board["variant"] == "")]
    plain = plain.drop_duplicates("case").set_index("case")
    for column in ("time", "operations"):
        board[column] = board[column] / board["case"].map(plain[column])
    order = pd.Categorical(board["case"], board["case"].unique())
    return board.assign(order=order).sort_values(["order", "test"], ascending=[True, False]).drop(columns="order")


def table(results: pd.DataFrame) -> Table:
    """The leaderboard for the terminal."""
    rows, notes = cases.newest(results)
    caption = "\n".join([*notes, f"± {stats.INTERVAL_METHOD}; the last epoch, not the best one"])
    out = Table(box=box.SIMPLE_HEAD, caption=Text(caption), caption_justify="left", title_justify="left")
    for name, head in HEADS.items():
        out.add_column(head, justify="left" if name in ("label", "status") else "right", no_wrap=name == "label")
    if rows.empty:
        return out
    board = frame(rows)
    for case, group in board.groupby("case", sort=False):
        out.add_row(Text(str(case), style="bold"), *[""] * (len(HEADS) - 1))
        for row in group.to_dict("records"):
            out.add_row(*[Text(cell) for cell in _cells(row)])
        out.add_section()
    return out


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
