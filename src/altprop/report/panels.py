"""Learning curves of many contenders: a panel a rule, with its controls, before all others in grey."""

import math
import re
from collections import Counter
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from altprop.report.colours import DASHES, Style
from altprop.report.scales import percent
from altprop.report.words import literal

COLUMNS, WIDTH, HEIGHT = 4, 2.45, 2.0
GREY = "#d9dce0"


def draw(curves: pd.DataFrame, column: str, words: str, title: str, style: Mapping[str, Style]) -> Figure:
    """Mean test accuracy and its interval against a cost. curves: label, mean, low, high and the cost.

    The upper end of the axis is stretched, as rules differ most there.
    """
    rules = list(dict.fromkeys(panel_of(str(label)) for label in curves["label"]))
    lines = {str(label): curve for label, curve in curves.groupby("label", sort=False)}
    rows = math.ceil(len(rules) / COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * rows + 0.7), layout="constrained")
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(f"{words} (each panel: one rule and its controls; in grey, all others)", fontsize=9.5)
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    lowest = float(curves.groupby("label")["mean"].last().min())
    for axes, rule in zip(panels.flat, rules, strict=False):
        axes.set_visible(True)
        axes.set_title(literal(rule), fontsize=8.5, pad=4)
        _curves(axes, rule, lines, column, style)
        _scales(axes, max(0.0, min(0.5, lowest - 0.1)))
    for axes in panels.flat[max(0, len(rules) - COLUMNS) : len(rules)]:
        axes.xaxis.set_tick_params(labelbottom=True)
    return figure


def panel_of(label: str) -> str:
    """The rule in whose panel a contender stands: its own, or the one whose net it is a control on."""
    control = re.search(r" on the net of ([^ ,]+)", label)
    return control[1] if control else re.split(r" [·(]", label)[0]


def short(label: str, rule: str) -> str:
    """A contender's name inside the panel of a rule."""
    name = re.sub(r" on the net of .*", " on its net", label)
    if name.startswith(f"{rule} · "):
        return name.removeprefix(f"{rule} · ")
    return name.removeprefix(f"{rule} (").removesuffix(")") if name.startswith(f"{rule} (") else name


def _curves(axes: Axes, rule: str, lines: Mapping[str, pd.DataFrame], column: str, style: Mapping[str, Style]) -> None:
    drawn: Counter[str] = Counter()  # of each colour: a rule has more controls than there are dashes, a panel has few
    for label, curve in lines.items():
        x, colour = curve[column], style[label].colour
        if panel_of(label) == rule:
            dash = DASHES[drawn[colour] % len(DASHES)][1]
            drawn[colour] += 1
            axes.plot(x, curve["mean"], color=colour, linestyle=dash, linewidth=1.6, zorder=3,
                      label=literal(short(label, rule)))  # fmt: skip
            axes.fill_between(x, curve["low"].clip(0, 1), curve["high"].clip(0, 1), color=colour, alpha=0.15,
                              linewidth=0, zorder=2)  # fmt: skip
        else:
            axes.plot(x, curve["mean"], color=GREY, linewidth=0.7, zorder=1)
    if axes.get_legend_handles_labels()[1] != [literal(rule)]:  # one line, which the title names
        axes.legend(loc="lower right", fontsize=6.5, handlelength=2.4, borderaxespad=0.2, labelspacing=0.25,
                    framealpha=0.75, edgecolor="none")  # fmt: skip


def _scales(axes: Axes, low: float) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    percent(axes, low)
    axes.tick_params(labelsize=7.5)
