"""Many contenders are drawn in panels: each line stands in colour in one, and in grey in the others."""

import pandas as pd
import pytest

from altprop.report import figures, panels
from altprop.report.colours import styles

LABELS = [
    "a",
    "a (sum)",
    "backprop",
    "backprop · on the net of a",
    "backprop · frozen on the net of b, wide",
    "b · wide",
]


@pytest.mark.parametrize(
    ("label", "panel", "name"),
    [
        ("a", "a", "a"),
        ("a (sum)", "a", "sum"),
        ("backprop · linear", "backprop", "linear"),
        ("backprop · on the net of a", "a", "backprop · on its net"),
        ("b · frozen on the net of b", "b", "frozen on its net"),
        ("backprop · on the net of b, wide", "b", "backprop · on its net"),
        ("b · wide (sum)", "b", "wide (sum)"),
    ],
)
def test_a_contender_stands_in_its_rules_panel(label: str, panel: str, name: str) -> None:
    assert panels.panel_of(label) == panel
    assert panels.short(label, panel) == name


def curves(labels: list[str]) -> pd.DataFrame:
    points = [
        {"label": label, "rule": label.split(" ")[0], "samples": s, "mean": m, "low": m - 0.01, "high": m + 0.01}
        for label in labels
        for s, m in ((100, 0.6), (1000, 0.9))
    ]
    return pd.DataFrame(points)


def test_each_line_is_coloured_once() -> None:
    drawn = panels.draw(curves(LABELS), "samples", "samples", "many", styles((x.split(" ")[0], x) for x in LABELS))
    shown = [axes for axes in drawn.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["a", "backprop", "b"]
    grey = [sum(line.get_color() == panels.GREY for line in axes.lines) for axes in shown]
    assert [len(axes.lines) for axes in shown] == [len(LABELS)] * 3
    assert grey == [3, 5, 4]


def test_lines_of_a_panel_differ_in_colour_or_dash_however_many_controls_there_are() -> None:
    labels = ["backprop", *(f"backprop · {what} the net of {c}" for c in "abcdef" for what in ("on", "frozen on"))]
    drawn = panels.draw(curves(labels), "samples", "samples", "many", styles(("backprop", x) for x in labels))
    for axes in (axes for axes in drawn.axes if axes.get_visible()):
        own = [line for line in axes.lines if line.get_color() != panels.GREY]
        assert len({(line.get_color(), str(line._dash_pattern)) for line in own}) == len(own)


def test_a_control_has_a_panel_even_where_its_rule_is_not_shown() -> None:
    labels = ["backprop", "backprop · on the net of a"]
    drawn = panels.draw(curves(labels), "samples", "samples", "two", styles(("backprop", x) for x in labels))
    assert [axes.get_title() for axes in drawn.axes if axes.get_visible()] == ["backprop", "a"]


def test_few_contenders_share_one_panel() -> None:
    frame = curves(LABELS)
    style = styles((x.split(" ")[0], x) for x in LABELS)
    assert len(figures._against(frame, "samples", "samples", "few", style).axes) == 1
    many = curves([f"r{k}" for k in range(figures.CROWD + 1)])
    style = styles((x, x) for x in many["label"].unique())
    assert len(figures._against(many, "samples", "samples", "many", style).axes) > figures.CROWD
