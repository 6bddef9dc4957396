"""The figures of the study of relaxation: accuracy against sweeps, and along the knob from backpropagation."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, save
from altprop.report.scales import percent

LINES = [style.colour for style in PREDICTORS.values()]


def draw_sweeps(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`sweeps.png` and `.svg`. table: start, sweeps, seed, test, cpu_seconds, passes, residual."""
    columns = {"sweeps": "sweeps a batch", "passes": "passes a step", "cpu_seconds": "CPU seconds of training"}
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        for axes, (column, words) in zip(figure.subplots(1, 3, sharey=True), columns.items(), strict=True):
            for colour, (start, own) in zip(LINES, table.groupby("start"), strict=False):
                by = own.groupby("sweeps")
                x = by[column].median()
                axes.plot(x, by["test"].mean(), color=colour, marker="o", markersize=3.5, label=f"start: {start}")
                axes.fill_between(x, by["test"].min(), by["test"].max(), color=colour, alpha=0.15, linewidth=0)
            _logarithmic(axes, words)
        first = figure.axes[0]
        percent(first)
        first.set_ylabel("test accuracy")
        first.legend(frameon=False, loc="upper left")
        return save(figure, folder, "sweeps", ("png", "svg"))


def draw_knob(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`knob.png` and `.svg`. table: output, beta, seed, test, block, cosine, ratio."""
    table = table.assign(beta=table["beta"].where(table["beta"] > 0, table["beta"][table["beta"] > 0].min() / 10))
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        top, *others = figure.subplots(1, 3)
        for colour, (output, own) in zip(LINES, table.groupby("output"), strict=False):
            by = own.drop_duplicates(["beta", "seed"]).groupby("beta")["test"]
            top.plot(by.mean().index, by.mean(), color=colour, marker="o", markersize=3.5, label=str(output))
            top.fill_between(by.mean().index, by.min(), by.max(), color=colour, alpha=0.15, linewidth=0)
        percent(top)
        least, most = top.get_ylim()
        top.set_yticks([tick / 100 for tick in range(101) if least <= tick / 100 <= most])
        top.set_title("test accuracy", fontsize=9.5)
        top.legend(frameon=False, loc="lower left")
        columns = {"cosine": "cosine to backprop", "ratio": "length / backprop's"}
        for axes, (column, words) in zip(others, columns.items(), strict=True):
            _blocks(axes, table[table["output"] == "cross-entropy"], column)
            axes.set_title(f"{words} (cross-entropy)", fontsize=9.5)
        others[1].set_yscale("log")
        others[0].legend(frameon=False, loc="lower left")
        smallest = table["beta"].min()
        for axes in (top, *others):
            _logarithmic(axes, "weight beta of the output's cost")
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: "backprop" if value <= 1.01 * smallest else f"{value:g}")
            )
        return save(figure, folder, "knob", ("png", "svg"))


def _blocks(axes: Axes, table: pd.DataFrame, column: str) -> None:
    """A line a block against beta, mean over seeds; the deeper the block, the lighter."""
    blocks = sorted(table["block"].unique())
    shades = mpl.colormaps["viridis"].resampled(len(blocks) + 1)
    for i, block in enumerate(blocks):
        mean = table[table["block"] == block].groupby("beta")[column].mean()
        words = "output block" if i + 1 == len(blocks) else f"block {i + 1}"
        axes.plot(mean.index, mean, color=shades(i), marker="o", markersize=3, label=words)


def _logarithmic(axes: Axes, words: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(words)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
