"""The figure of an ablation: each change's difference to the base, with its interval."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from altprop.report.colours import PREDICTORS, Style
from altprop.report.figures import LOOK, empty, save


def draw(table: pd.DataFrame, base: str, folder: Path) -> list[Path]:
    """`differences.png` and `.svg`: one line a change, one mark a predictor, in points of test accuracy.

    table: variant, predictor, difference, low, high, in per cent. The axis is as wide as most changes need; for a
    difference that lies beyond it, an arrow with the number stands in its place.
    """
    rows = table[table["variant"] != base]
    changes = list(dict.fromkeys(rows["variant"]))[::-1]
    reach = min(10.0, max(0.5, 1.2 * float(rows[["low", "high"]].abs().max(axis=1).quantile(0.6))))
    with mpl.rc_context(LOOK):
        title, words = "Difference to the base, paired by seed", "points of test accuracy"
        figure, axes = empty(title, words, height=1 + 0.34 * len(changes))
        axes.axvline(0, color="#6b727c", linewidth=1.2)
        for row in rows.to_dict("records"):
            shift = 0.16 if row["predictor"] == next(iter(PREDICTORS)) else -0.16
            _mark(axes, row, changes.index(row["variant"]) + shift, reach, PREDICTORS[row["predictor"]])
        for predictor, style in PREDICTORS.items():
            axes.plot([], [], color=style.colour, marker=style.marker[1], markersize=4.5, label=f"by {predictor}")
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-0.7, len(changes) - 0.3)
        axes.set_yticks(range(len(changes)), changes)
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right", frameon=False, fontsize=8.5, bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.3)
        return save(figure, folder, "differences", ("png", "svg"))


def _mark(axes: Axes, row: Mapping[Any, Any], y: float, reach: float, style: Style) -> None:
    """A difference with its interval, or what stands in its place."""
    value = float(row["difference"])
    if abs(value) <= reach:
        axes.plot((row["low"], row["high"]), (y, y), color=style.colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot(value, y, color=style.colour, marker=style.marker[1], markersize=4.5, linestyle="none")
        return
    right = value > 0
    words = "diverged" if math.isnan(value) else f"{value:+.1f} →" if right else f"← {value:+.1f}"
    side = "right" if right else "left"
    axes.text(reach if right else -reach, y, f" {words} ", color=style.colour, va="center", ha=side, fontsize=8)
