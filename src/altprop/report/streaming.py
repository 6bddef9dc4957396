"""What streams gave: one row a contender, in the terminal and on the page, and the figure of who waits for what."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from altprop.bench import cases, stats
from altprop.bench.hearing import ANSWER
from altprop.bench.prequential import (
    GAP,
    HIGH,
    MEDIAN,
    MODE,
    OF_ALL,
    OF_LAST,
    ONE_PASS,
    OPERATIONS,
    PROCESSOR,
    SECONDS,
    SPLIT,
)
from altprop.report import colours, words
from altprop.report.figures import LOOK, empty, save

HEADS = {
    "contender": "left",
    "the last\n10,000": "right",
    "all": "right",
    "test": "right",
    "answers in": "left",
    "ms to the\nanswer": "right",
    "passes to\nthe answer": "right",
    "to the first\nupdate": "right",
    "to the last\nupdate": "right",
    "status": "left",
}
CAPTION = (
    """Every sample is answered before it is learned from; the last 10,000, all: share of right answers.
Passes: operations from a sample's arrival, in units of a forward pass.
"""
    + f"± {stats.INTERVAL_METHOD}"
)


def frame(results: pd.DataFrame) -> pd.DataFrame:
    """One row a case and contender, the best first; rows of other runs than streams are left out.

    Columns: case, rule, variant, label; last (accuracy of the last 10,000 answers, mean over seeds) with low and high,
    and each (of each seed); all (of all answers); test (at the end); one_pass (share answered in the learning pass);
    gap (the largest difference of such an answer to the prediction, as a share of the largest score); seconds (to the
    answer: median on the processor, median and 95th percentile of the clock); passes (by event, in order: operations
    until it, in forward passes); status.
    """
    rows = cases.arrange(cases.newest(results[results["mode"].eq(MODE)])[0])
    heard = rows[rows["split"].eq(SPLIT)].sort_values("samples", kind="stable")
    ends = heard.drop_duplicates([*stats.ONE_CURVE, "metric"], keep="last")
    ends = ends.pivot(index=stats.ONE_CURVE, columns="metric", values="value")
    runs = stats.final(rows).join(ends.reindex(columns=ends.columns.union([OF_LAST, OF_ALL, ONE_PASS, GAP])),
                                  on=stats.ONE_CURVE)  # fmt: skip
    answers = pd.MultiIndex.from_frame(runs[stats.ONE_CURVE]).isin(ends.index)
    silent = ~runs["run"].isin(heard["run"]) & ~runs["run"].duplicated()  # unsupported, or over before its first point
    board = [_row(group) for _, group in runs[answers | silent].groupby(["case", "label"], sort=False)]
    order = pd.DataFrame(board).sort_values("last", ascending=False, kind="stable")
    return order.sort_values("case", key=lambda case: case.map(list(runs["case"].unique()).index), kind="stable")


def _row(group: pd.DataFrame) -> dict[str, Any]:
    """A contender's row, from one row a seed."""
    first = group.iloc[0]
    mean, low, high = stats.interval_of_all(group[OF_LAST])
    events = [str(name).removeprefix(OPERATIONS) for name in group if str(name).startswith(OPERATIONS)]
    when = {event: (_passes(group, event), group[MEDIAN + SECONDS + event].median()) for event in events}
    kinds = (MEDIAN + PROCESSOR, MEDIAN + SECONDS, HIGH + SECONDS)
    return {
        "case": first["case"], "rule": first["rule"], "variant": first["variant"], "label": first["label"],
        "last": mean, "low": low, "high": high, "each": list(group.sort_values("seed")[OF_LAST]),
        "all": group[OF_ALL].mean(), "test": group["value"].mean(),
        "one_pass": group[ONE_PASS].mean(), "gap": group[GAP].max(),
        "seconds": tuple(_median(group, kind + ANSWER) for kind in kinds),
        "passes": {event: when[event][0] for event in sorted(when, key=when.__getitem__) if when[event][0] >= 0},
        "status": words.status(group),
    }  # fmt: skip


def _passes(group: pd.DataFrame, event: str) -> float:
    """Operations from a batch's arrival to an event, in units of its forward pass."""
    return float((group[OPERATIONS + event] / (group["forward_operations"] * group["batch_size"])).mean())


def _median(group: pd.DataFrame, metric: str) -> float:
    return float(group[metric].median()) if metric in group else float("nan")


def answers_in(row: dict[Hashable, Any]) -> str:
    """In how many passes a contender answers and learns, in words."""
    share = row["one_pass"]
    if share != share:
        return words.NOTHING
    return "two passes" if share == 0 else "one pass" if share > 0.98 else f"one pass ({100 * share:.0f} %)"


def table(results: pd.DataFrame) -> Table:
    """The board of streams for the terminal."""
    out = Table(box=box.SIMPLE_HEAD, caption=Text(CAPTION), caption_justify="left")
    for head, justify in HEADS.items():
        out.add_column(head, justify="right" if justify == "right" else "left", no_wrap=justify == "right")
    for case, group in frame(results).groupby("case", sort=False):
        out.add_row(Text(str(case), style="bold"))
        for row in group.to_dict("records"):
            out.add_row(*[Text(cell) for cell in _cells(row)])
        out.add_section()
    return out


def _cells(row: dict[Hashable, Any]) -> list[str]:
    updates = [passes for event, passes in row["passes"].items() if event != ANSWER]
    half = 50 * (row["high"] - row["low"])
    return [
        row["label"],
        words.percent(row["last"]) + ("" if half != half else f" ± {half:.2f}"),
        words.percent(row["all"]),
        words.percent(row["test"]),
        answers_in(row),
        milliseconds(row["seconds"][1]),
        *(f"{value:.2f}" if value == value else words.NOTHING for value in (
            row["passes"].get(ANSWER, float("nan")),
            min(updates, default=float("nan")),
            max(updates, default=float("nan")),
        )),
        row["status"],
    ]  # fmt: skip


def milliseconds(seconds: float) -> str:
    return words.NOTHING if seconds != seconds else f"{1000 * seconds:.2f}"


def draw_delays(board: pd.DataFrame, folder: Path) -> list[Path]:
    """`delays.png` and `.svg`: a line a contender, a dot where a part is updated, a star where the answer is there.

    board: `frame`'s rows of one case. The axis counts operations from a sample's arrival, in forward passes.
    """
    rows = board[board["passes"].map(len) > 0].iloc[::-1]
    styles = colours.styles(zip(rows["rule"], rows["label"], strict=True))
    with mpl.rc_context(LOOK):
        figure, axes = empty(
            "What a sample waits for", "forward passes since its arrival, counted in operations", 1 + 0.36 * len(rows)
        )
        for y, row in enumerate(rows.to_dict("records")):
            colour = styles[row["label"]].colour
            updates = [passes for event, passes in row["passes"].items() if event != ANSWER]
            axes.plot((0, max(row["passes"].values())), (y, y), color=colour, linewidth=1, alpha=0.5)
            axes.plot(updates, [y] * len(updates), color=colour, marker="o", markersize=4.5, linestyle="none")
            axes.plot(row["passes"][ANSWER], y, color=colour, marker="*", markersize=12, linestyle="none",
                      markeredgecolor="white", markeredgewidth=0.7, zorder=3)  # fmt: skip
        axes.set_yticks(range(len(rows)), [words.literal(label) for label in rows["label"]])
        axes.grid(axis="y", visible=False)
        axes.set_xlim(left=0)
        axes.plot([], [], color="#6b727c", marker="*", markersize=11, linestyle="none", label="answer")
        axes.plot([], [], color="#6b727c", marker="o", markersize=4.5, linestyle="none", label="update of a part")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0.3)
        return save(figure, folder, "delays", ("png", "svg"))
