"""The figures of the study of black boxes: accuracy against strength, and what the number of weights does."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from altprop.report.colours import Style, styles
from altprop.report.figures import LOOK, save

COLUMNS = 2


def draw_strengths(table: pd.DataFrame, titles: Mapping[str, str], folder: Path) -> list[Path]:
    """`strengths.png` and `.svg`: a panel a box, a line a method.

    table: panel, method, strength, mean, low, high, in per cent; titles: of the panels. Strengths stand at equal steps.
    """
    style = _styles(table)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.8, 8.2), layout="constrained")
        panels = figure.subplots(-(-len(titles) // COLUMNS), COLUMNS, squeeze=False, sharey=True)
        for axes, (panel, title) in zip(panels.flat, titles.items(), strict=False):
            rows = table[table["panel"] == panel]
            strengths = sorted(rows["strength"].unique())
            for method, line in rows.groupby("method", sort=False):
                _line(axes, [strengths.index(s) for s in line["strength"]], line, style[str(method)])
            axes.set_xticks(range(len(strengths)), [f"{s:g}" for s in strengths])
            axes.set_title(title, fontsize=10)
            axes.set_ylim(0, 101)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        for axes in list(panels.flat)[len(titles) :]:
            axes.set_visible(False)
        figure.suptitle("Test accuracy against the strength of the box", x=0.01, ha="left", fontweight="bold")
        _legend(figure, style)
        return save(figure, folder, "strengths", ("png", "svg"))


def draw_sizes(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`sizes.png` and `.svg`: the largest stable rate of every seed, and accuracy, against the number of weights.

    table: method, weights, mean, low, high (per cent), rates (one a seed).
    """
    style = _styles(table)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.8, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for method, line in table.groupby("method", sort=False):
            rates = line.explode("rates").astype({"rates": float})
            one = style[str(method)]
            left.plot(rates["weights"], rates["rates"], color=one.colour, marker=one.marker[1], markersize=4, alpha=0.6,
                      linestyle="none")  # fmt: skip
            middle = rates.groupby("weights")["rates"].median()
            left.plot(middle.index, middle, color=one.colour, linestyle=one.dash[1], linewidth=1.7)
            _line(right, list(line["weights"]), line, one)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlabel("weights")
        left.set_yscale("log")
        left.yaxis.set_minor_formatter(NullFormatter())
        left.set_title("Largest stable rate: every seed, and the median")
        right.set_ylim(0, 101)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        right.set_title("Test accuracy at the best rate")
        _legend(figure, style)
        return save(figure, folder, "sizes", ("png", "svg"))


def _styles(table: pd.DataFrame) -> dict[str, Style]:
    """By method, in the table's order; the ways of one rule share its colour."""
    methods = list(table["method"].unique())
    found = styles((method.partition(",")[0], method) for method in methods)
    return {method: found[method] for method in methods}


def _line(axes: Axes, x: list[int], line: pd.DataFrame, style: Style) -> None:
    axes.plot(x, line["mean"], color=style.colour, linestyle=style.dash[1], marker=style.marker[1], markersize=4,
              linewidth=1.7)  # fmt: skip
    axes.fill_between(
        x, line["low"].clip(0, 100), line["high"].clip(0, 100), color=style.colour, alpha=0.1, linewidth=0
    )


def _legend(figure: Figure, style: Mapping[str, Style]) -> None:
    """Below the panels."""
    drawn = figure.axes[0]
    lines = [
        drawn.plot([], [], color=s.colour, linestyle=s.dash[1], marker=s.marker[1], markersize=4, label=name)[0]
        for name, s in style.items()
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=3, frameon=False, fontsize=8.5, handlelength=3.5)
