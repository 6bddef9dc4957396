"""The figure of Hebbian updates by matrix products: time and memory of both forms."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from altprop.report.figures import LOOK, save

COLOURS = ("#d3500c", "#e69f00", "#0a78c2", "#3a8a3a", "#8a5aa8")


def draw(table: pd.DataFrame, folder: Path) -> list[Path]:
    """`updates.png` and `.svg`. table: update, patches, units, inputs, fast_ms, naive_ms, fast_bytes, naive_bytes."""
    table = table.assign(size=table["patches"] * table["units"] * table["inputs"]).sort_values("size", kind="stable")
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, unit, words in zip(
            figure.subplots(1, 2), ("ms", "bytes"), ("milliseconds an update", "peak bytes of an update"), strict=True
        ):
            for colour, (name, own) in zip(COLOURS, table.groupby("update", sort=False), strict=False):
                own = own.sort_values("size")
                axes.plot(own["size"], own[f"fast_{unit}"], color=colour, marker="o", markersize=3.5, label=str(name))
                axes.plot(own["size"], own[f"naive_{unit}"], color=colour, marker="o", markersize=3.5, linestyle="--")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("patches x units x inputs")
            axes.set_title(f"{words} (dashed: naive)", fontsize=9.5)
        figure.axes[0].legend(frameon=False, loc="upper left")
        return save(figure, folder, "updates", ("png", "svg"))
