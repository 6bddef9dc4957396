"""The figures of the study of sleep: accuracy against the length of a phase, and against steps without negatives."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, empty, save

DASHES = ("--", "-")


def draw_lengths(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`lengths.png` and `.svg`. table: length (0: both at once), predictor, mean, low, high, in per cent."""
    with mpl.rc_context(LOOK):
        figure, axes = empty("Test accuracy against the length of a phase", "steps of positives, then of negatives")
        names = [f"{length:,}" if length else "both\nat once" for length in table["length"].unique()]
        for shift, (predictor, style) in zip((-0.06, 0.06), PREDICTORS.items(), strict=True):
            rows = table[table["predictor"] == predictor]
            places = [k + shift for k in range(len(rows))]
            axes.plot(places, rows["mean"], color=style.colour, marker=style.marker[1], markersize=5, linewidth=1.7,
                      label=f"by {predictor}")  # fmt: skip
            axes.vlines(places, rows["low"], rows["high"], color=style.colour, linewidth=1.4)
        axes.set_xticks(range(len(names)), names)
        _finish(axes, table)
        return save(figure, folder, "lengths", ("png", "svg"))


def draw_deprivation(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`deprivation.png` and `.svg`. table: condition, predictor, steps, mean, low, high, in per cent.

    The first condition is the control, drawn broken.
    """
    with mpl.rc_context(LOOK):
        figure, axes = empty("Test accuracy of a trained net that goes on", "further steps")
        for condition, dash in zip(table["condition"].unique(), DASHES, strict=True):
            for predictor, style in PREDICTORS.items():
                rows = table[(table["condition"] == condition) & (table["predictor"] == predictor)]
                axes.plot(rows["steps"], rows["mean"], color=style.colour, linestyle=dash, marker=style.marker[1],
                          markersize=4, linewidth=1.7, label=f"{condition}, by {predictor}")  # fmt: skip
                axes.fill_between(rows["steps"], rows["low"], rows["high"], color=style.colour, alpha=0.12, linewidth=0)
        axes.set_xscale("symlog", linthresh=1)
        steps = [int(n) for n in table["steps"].unique()]
        axes.set_xticks(steps, [f"{n:,}" for n in steps])
        axes.minorticks_off()
        _finish(axes, table)
        return save(figure, folder, "deprivation", ("png", "svg"))


def _finish(axes: Axes, table: pd.DataFrame) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, float(table["mean"].min()) - 5, 0), min(high, 100.5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.legend(loc="best", frameon=False, fontsize=8.5, handlelength=3.5)
