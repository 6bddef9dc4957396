"""The figures of the study of feedback: angles through training, and accuracy with feedback in only some blocks."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, save
from altprop.report.scales import percent

LINES = [style.colour for style in PREDICTORS.values()]
STYLES = ("-", "--", ":", "-.")


def draw_turned(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`turned.png` and `.svg`: one column a rule, the angle of the weights above, that of the updates below. table:
    rule, seed, samples, block, weights, update."""
    names = list(dict.fromkeys(table["rule"]))
    blocks = sorted(table["block"].unique())
    shades = mpl.colormaps["viridis"].resampled(len(blocks) + 1)
    rows = {"weights": "B and W", "update": "update and backprop's"}
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(2.1 * len(names) + 0.6, 4.6), layout="constrained")
        grid = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
        for column, name in enumerate(names):
            own = table[table["rule"] == name]
            for axes, what in zip(grid[:, column], rows, strict=True):
                for i, block in enumerate(blocks):
                    by = own[own["block"] == block].groupby("samples")[what]
                    if by.mean().notna().any():
                        axes.plot(by.mean().index + 1, by.mean(), color=shades(i), label=str(block))
                        axes.fill_between(by.mean().index + 1, by.min(), by.max(), color=shades(i), alpha=0.15, lw=0)
                axes.axhline(90, color="0.6", linewidth=0.8, linestyle=":")
                axes.set_xscale("log")
            grid[0, column].set_title(name.replace("-feedback-alignment", "-feedback-\nalignment"), fontsize=8.5)
            grid[1, column].set_xlabel("samples")
        for axes, words in zip(grid[:, 0], rows.values(), strict=True):
            axes.set_ylabel(f"degrees, {words}")
            axes.set_ylim(0, 100)
        grid[1, 0].legend(frameon=False, fontsize=7.5)
        return save(figure, folder, "turned", ("png", "svg"))


def draw_some(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`some.png` and `.svg`: accuracy against the number of hidden blocks that learn, one line a rule and end. table:
    rule, blocks, end, seed, test."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for colour, (rule, own) in zip(LINES, table.groupby("rule", sort=False), strict=False):
            for style, end in zip(STYLES, ("output", "input"), strict=False):
                by = own[own["end"].isin((end, "both"))].groupby("blocks")["test"]
                x, mean = by.mean().index, by.mean()
                axes.plot(x, mean, style, color=colour, marker="o", markersize=3.5, label=f"{rule}, from the {end}")
                axes.fill_between(x, by.min(), by.max(), color=colour, alpha=0.12, linewidth=0)
        percent(axes)
        axes.set_xlabel("hidden blocks that learn, of five")
        axes.set_ylabel("test accuracy")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        return save(figure, folder, "some", ("png", "svg"))
