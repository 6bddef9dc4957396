"""The figure of the block-size knob: accuracy against the bytes of a step."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from altprop.report import colours
from altprop.report.figures import LOOK, save


def draw_block_sizes(table: pd.DataFrame, folder: Path, batches: tuple[int, int]) -> list[Path]:
    """`block_sizes.png` and `.svg`. table: rule, block_size (0: no modules), seed, test, and for two sizes of a batch
    peak_bytes and large_peak_bytes."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        few, many = figure.subplots(1, 2, sharey=True)
        _against(few, table, "peak_bytes", f"batches of {batches[0]:,}")
        _against(many, table, "large_peak_bytes", f"batches of {batches[1]:,}")
        few.set_ylabel("test accuracy")
        figure.legend(*few.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper center", ncols=3)
        return save(figure, folder, "block_sizes", ("png", "svg"))


def _against(axes: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """Accuracy against these bytes, a line a rule."""
    for i, (rule, own) in enumerate(table.groupby("rule", sort=False)):
        by = own.groupby("block_size")
        x, y = by[column].mean() / 2**20, by["test"].mean()
        spread = [y - by["test"].min(), by["test"].max() - y]
        colour, marker = colours.colour(str(rule)), "os^Dvx"[i % 6]
        axes.errorbar(x, y, spread, color=colour, marker=marker, markersize=4, label=str(rule))
        for size in x.index[x.index > 0]:
            axes.annotate(str(size), (x[size], y[size]), xytext=(5, -10), textcoords="offset points", fontsize=8)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_title(title)
    axes.set_xlabel("peak MiB of a step (numbers: blocks a module)")
