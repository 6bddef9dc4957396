"""The figure of the tree over class targets: what option 2 loses against the share of option 1's comparisons."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, empty, save


def draw(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`margins.png` and `.svg`: a line a task, the mean of its seeds, which are dots, with the margins beside.

    table: task (two of them at most), seed, margin, difference in points, share in [0, 1].
    """
    with mpl.rc_context(LOOK):
        figure, axes = empty("Option 2 minus option 1 by the margin", "share of option 1's comparisons")
        for style, (task, own) in zip(PREDICTORS.values(), table.groupby("task"), strict=False):
            axes.plot(100 * own["share"], own["difference"], color=style.colour, marker="o", markersize=3,
                      linestyle="none", alpha=0.5)  # fmt: skip
            mean = own.groupby("margin")[["share", "difference"]].mean()
            axes.plot(100 * mean["share"], mean["difference"], color=style.colour, linewidth=1.7, label=str(task))
            for margin, row in mean.iterrows():
                axes.annotate(f"{margin:g}", (100 * row["share"], row["difference"]), (0, -11), fontsize=7.5,
                              textcoords="offset points", color=style.colour, ha="center")  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        axes.set_ylabel("points of test accuracy")
        axes.legend(loc="best", frameon=False, fontsize=8.5)
        return save(figure, folder, "margins", ("png", "svg"))
