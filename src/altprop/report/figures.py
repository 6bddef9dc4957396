"""Figures for papers and slides, each as PNG, SVG and PDF: accuracy against each cost, and what depth does.

Drawn with matplotlib's objects (no pyplot, no display). The same rows give the same bytes: no dates, a fixed hash salt.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, ScalarFormatter

from altprop.bench import cases, stats
from altprop.report import colours, depths, panels
from altprop.report.colours import Style
from altprop.report.replace import replaced
from altprop.report.scales import percent
from altprop.report.words import literal

#: Metadata that would make two drawings of the same rows differ is left out.
FORMATS: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
COSTS = {"samples": "training samples seen", "seconds": "seconds of training", "operations": "operations of training"}
CROWD = 14
"""More contenders than this are drawn in panels."""
LOOK: Any = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a9099", "axes.labelcolor": "#3a4048", "xtick.color": "#5a616b", "ytick.color": "#5a616b",
    "axes.grid": True, "grid.color": "#e6e8eb", "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.titlesize": 11,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "svg.hashsalt": "altprop", "svg.fonttype": "none",
}  # fmt: skip


def draw(results: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw every figure that the rows allow into the folder; the paths, in the order drawn."""
    rows = cases.arrange(cases.newest(results)[0])
    style = colours.styles(zip(rows["rule"], rows["label"], strict=True))
    written: list[Path] = []
    with mpl.rc_context(LOOK):
        for case, curves in stats.curves(rows, "test").groupby("case", sort=False):
            for cost, column in stats.MEASURES.items():
                figure = _against(curves, column, COSTS[cost], f"{case}: test accuracy", style)
                written += save(figure, folder, f"{_slug(str(case))}-accuracy-{cost}")
        written += draw_streams(rows, folder)
        for (task, net), table in depths.frame(rows).groupby(["task", "net"], sort=False):
            for quantity, words in depths.QUANTITIES.items():
                figure = _depth(table, quantity, words, f"{task}, {net}", style)
                written += save(figure, folder, f"{_slug(f'{task}-{net}')}-depth-{quantity}")
    return written


def draw_streams(results: pd.DataFrame, folder: Path, endings: Iterable[str] = tuple(FORMATS)) -> list[Path]:
    """Prequential accuracy, that of the last 1,000 answers, against samples; nothing where there are no streams."""
    rows = cases.arrange(results)
    style = colours.styles(zip(rows["rule"], rows["label"], strict=True))
    written: list[Path] = []
    with mpl.rc_context(LOOK):
        for case, curves in stats.curves(rows, "stream").groupby("case", sort=False):
            figure = _against(
                curves, "samples", COSTS["samples"], f"{case}: accuracy of answers before learning", style
            )
            written += save(figure, folder, f"{_slug(str(case))}-stream", endings)
    return written


def _against(curves: pd.DataFrame, column: str, words: str, title: str, style: dict[str, Style]) -> Figure:
    """Mean accuracy and its interval against a cost. The axis is logarithmic: the untrained point is left out."""
    title = f"{title} against {words}"
    curves = curves[(curves["samples"] > 0) & (curves[column] > 0)]
    if curves["label"].nunique() > CROWD:
        return panels.draw(curves, column, words, title, style)
    figure, axes = empty(title, words)
    ends = []
    for label, curve in curves.groupby("label", sort=False):
        _line(axes, curve[column], curve, style[str(label)])
        ends.append((str(label), float(curve["mean"].iloc[-1])))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    percent(axes)
    _name(axes, ends, style)
    return figure


def _depth(table: pd.DataFrame, quantity: str, words: str, title: str, style: dict[str, Style]) -> Figure:
    """One quantity against depth, both axes as suits it."""
    figure, axes = empty(f"{title}: {words}", "hidden blocks")
    ends = []
    for label, curve in table[table[quantity] > 0].groupby("label", sort=False):
        _line(axes, curve["depth"], curve.assign(mean=curve[quantity]), style[str(label)], band=quantity == "accuracy")
        ends.append((str(label), float(curve[quantity].iloc[-1])))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(table["depth"].unique()))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if quantity == "accuracy":
        percent(axes)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    _name(axes, ends, style)
    return figure


def empty(title: str, words: str, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, its title and the words below it."""
    figure = Figure(figsize=(7.6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(literal(title), pad=10)
    axes.set_xlabel(words)
    return figure, axes


def _line(axes: Axes, x: pd.Series, curve: pd.DataFrame, style: Style, *, band: bool = True) -> None:
    marker = style.marker[1] if len(curve) < 20 else ""
    axes.plot(
        x, curve["mean"], color=style.colour, linestyle=style.dash[1], marker=marker, markersize=3.5, linewidth=1.7
    )
    if band and curve["low"].notna().any():
        axes.fill_between(x, curve["low"], curve["high"], color=style.colour, alpha=0.14, linewidth=0)


def _name(axes: Axes, ends: list[tuple[str, float]], style: dict[str, Style]) -> None:
    """Write each contender's name at the end of its line, moved up or down so that no two overlap."""
    x = axes.get_xlim()[1]  # any place will do: only the height counts
    data = axes.transData + axes.transAxes.inverted()
    places = [(float(data.transform((x, value))[1]), label) for label, value in ends]
    crowd = max(1.0, 0.052 * (len(ends) - 1))  # more names than fit beside the axes: a taller figure
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() * crowd)
    step = 0.052 / crowd
    for (place, label), (true, _) in zip(_spread(sorted(places), step), sorted(places), strict=True):
        colour, there = style[label].colour, axes.transAxes
        dash = style[label].dash[1]
        axes.plot((1, 1.08), (true, place), color=colour, linestyle=dash, linewidth=1, transform=there, clip_on=False)
        axes.text(1.09, place, literal(label), color=colour, fontsize=8.5, va="center", transform=there)


def _spread(places: list[tuple[float, str]], step: float) -> list[tuple[float, str]]:
    """Places at least `step` apart and as near as that allows to where they were; sorted from low to high."""
    moved = [place for place, _ in places]
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + step)
    over = max(0.0, moved[-1] - 1.0) if moved else 0.0
    for k in reversed(range(len(moved))):
        ceiling = moved[k + 1] - step if k + 1 < len(moved) else moved[k] - over
        moved[k] = min(moved[k], ceiling)
    return [(place, label) for place, (_, label) in zip(moved, places, strict=True)]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "task"


def save(figure: Figure, folder: Path, name: str, endings: Iterable[str] = tuple(FORMATS)) -> list[Path]:
    """Write the figure in each format, and return the paths; the same drawing gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: the three formats then agree, and cost less
    paths = {ending: folder / f"{name}.{ending}" for ending in FORMATS if ending in endings}
    for ending, path in paths.items():
        with replaced(path) as temporary:
            figure.savefig(temporary, dpi=160, metadata=FORMATS[ending])
    return list(paths.values())
