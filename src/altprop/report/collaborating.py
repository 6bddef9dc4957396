"""The figure of layer collaboration: what each block alone says about the class, with and without."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd

from altprop.report.colours import PREDICTORS
from altprop.report.figures import LOOK, empty, save


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """`blocks.png` and `.svg`: a dot a seed. rows: condition (two of them), read, test (accuracy in [0, 1])."""
    reads, conditions = list(rows["read"].unique()), list(rows["condition"].unique())
    with mpl.rc_context(LOOK):
        figure, axes = empty("Test accuracy by what is read", "read by")
        for shift, condition, style in zip((-0.1, 0.1), conditions, PREDICTORS.values(), strict=True):
            own = rows[rows["condition"] == condition]
            places = [reads.index(read) + shift for read in own["read"]]
            axes.plot(places, 100 * own["test"], color=style.colour, marker=style.marker[1], markersize=5,
                      linestyle="none", alpha=0.8, label=condition)  # fmt: skip
        axes.set_xticks(range(len(reads)), reads)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        axes.legend(loc="best", frameon=False, fontsize=8.5)
        return save(figure, folder, "blocks", ("png", "svg"))
