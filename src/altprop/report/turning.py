"""The figures of the study of feedback: angles through training, and accuracy with feedback in only some blocks."""

import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from altprop.report.colours import colour
from altprop.report.figures import LOOK, save
from altprop.report.scales import percent

ROWS = {"weights": "degrees, B and W", "update": "degrees from backprop's"}
STYLES = {"output": "-", "input": "--"}
ACROSS = 4


def draw_turned(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`turned.png` and `.svg`: four rules side by side, the angle of the weights above, that of the updates below.
    table: rule, seed, samples, block, weights, update."""
    names = list(dict.fromkeys(table["rule"]))
    blocks = sorted(table["block"].unique())
    across = min(ACROSS, len(names))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(2.3 * across + 0.6, 4.4 * math.ceil(len(names) / across)), layout="constrained")
        grid = figure.subplots(2 * math.ceil(len(names) / across), across, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)  # until a rule is drawn there
        for i, name in enumerate(names):
            row, column = divmod(i, across)
            grid[2 * row, column].set_title(name.replace("direct-", "direct-\n", 1), fontsize=8.5)
            for axes, what in zip(grid[2 * row : 2 * row + 2, column], ROWS, strict=True):
                _angles(axes, table[table["rule"] == name], what, blocks)
        for i, axes in enumerate(grid[:, 0]):
            axes.set_ylabel(list(ROWS.values())[i % 2], fontsize=8.5)
        for axes in grid[-1]:
            axes.set_xlabel("samples")
        grid[0, 0].set_ylim(0, table[list(ROWS)].max().max() + 5)  # of all, which share it
        grid[1, 0].legend(frameon=False, fontsize=7.5)
        return save(figure, folder, "turned", ("png", "svg"))


def _angles(axes: Axes, own: pd.DataFrame, what: str, blocks: list[str]) -> None:
    """One rule's angles of a kind, a line a block; shaded from the lowest seed to the highest."""
    shades = mpl.colormaps["viridis"].resampled(len(blocks) + 1)
    axes.set_visible(True)
    for i, block in enumerate(blocks):
        by = own[own["block"] == block].groupby("samples")[what]
        if by.mean().notna().any():
            axes.plot(by.mean().index + 1, by.mean(), color=shades(i), label=str(block))
            axes.fill_between(by.mean().index + 1, by.min(), by.max(), color=shades(i), alpha=0.15, lw=0)
    axes.axhline(90, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")


def draw_some(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`some.png` and `.svg`: accuracy against the number of hidden blocks that learn, one line a rule and end. table:
    rule, blocks, end, seed, test."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(7.8, 4.4), layout="constrained")
        axes = figure.subplots()
        for rule, own in table.groupby("rule", sort=False):
            for end, style in STYLES.items():
                by = own[own["end"].isin((end, "both"))].groupby("blocks")["test"]
                x, mean = by.mean().index, by.mean()
                axes.plot(
                    x, mean, style, color=colour(str(rule)), marker="o", markersize=3.5, label=f"{rule}, from the {end}"
                )
                axes.fill_between(x, by.min(), by.max(), color=colour(str(rule)), alpha=0.12, linewidth=0)
        percent(axes)
        axes.set_xlabel("hidden blocks that learn, of five")
        axes.set_ylabel("test accuracy")
        figure.legend(frameon=False, fontsize=7.5, loc="outside lower center", ncols=3)
        return save(figure, folder, "some", ("png", "svg"))
