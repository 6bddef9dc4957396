"""The figure of dead neurons: one column a way to learn, the share of units that never fire against samples seen."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, save

DASHES = ("-", "--", ":")


def draw(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`dead.png` and `.svg`. table: column, threshold, block, seed, samples, dead (share in [0, 1])."""
    names = list(table["column"].unique())
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
            _column(axes, table[table["column"] == name])
            axes.set_title(name, fontsize=9.5)
        first = figure.axes[0]
        first.set_ylabel("units that never fire")
        first.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        first.set_xlabel("training samples seen")
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        return save(figure, folder, "dead", ("png", "svg"))


def _column(axes: Axes, table: pd.DataFrame) -> None:
    """A line a block and threshold, the mean over seeds with the range of the seeds behind it."""
    for dash, (threshold, own) in zip(DASHES, table.groupby("threshold"), strict=False):
        for style, (block, rows) in zip(PREDICTORS.values(), own.groupby("block"), strict=False):
            each = 100 * rows.groupby("samples")["dead"].agg(["mean", "min", "max"])
            label = f"block {block}, threshold {threshold:g}"
            axes.plot(each.index, each["mean"], color=style.colour, linestyle=dash, linewidth=1.7, label=label)
            axes.fill_between(each.index, each["min"], each["max"], color=style.colour, alpha=0.15, linewidth=0)
    axes.set_xscale("symlog", linthresh=500)
    axes.set_xticks([0, 500, 5_000, 50_000])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylim(-2, 102)
