"""One colour a rule everywhere: in the figures, on the page, in light and in dark.

The known rules have fixed colours after Okabe and Ito (2008, "Color universal design"), which stay apart for
colour-blind readers; backprop is the grey yardstick. Any other rule gets a hue from its name. Contenders of one rule
(variants, ways to predict, settings) share the hue and differ in dash and marker.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

KNOWN = {
    "backprop": "#6b727c",
    "forward-forward": "#0a78c2",
    "signal-propagation": "#e69f00",
    "direct-feedback-alignment": "#0aa87b",
    "predictive-coding": "#dd8fbe",
    "soft-wta": "#d3500c",
}
Dash = str | tuple[int, tuple[float, ...]]
#: (plotly's name, matplotlib's pattern)
DASHES: list[tuple[str, Dash]] = [
    ("solid", "-"),
    ("dash", (0, (5.0, 2.0))),
    ("dot", (0, (1.0, 1.6))),
    ("dashdot", (0, (5.0, 2.0, 1.0, 2.0))),
    ("longdash", (0, (9.0, 3.0))),
    ("longdashdot", (0, (9.0, 3.0, 1.0, 3.0))),
]
MARKERS = [("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("cross", "P"), ("star", "*")]


@dataclass(frozen=True)
class Style:
    """How a contender is drawn: `dash` and `marker` as (plotly's name, matplotlib's name)."""

    colour: str
    dash: tuple[str, Dash]
    marker: tuple[str, str]


#: Where one rule's ways to predict stand side by side, and no other rule.
PREDICTORS = {
    "energy": Style("#d3500c", DASHES[0], MARKERS[0]),
    "head": Style("#0a78c2", DASHES[0], MARKERS[1]),
}


def colour(rule: str) -> str:
    """The rule's colour as #rrggbb; of an unknown rule a mid tone whose hue comes from its name."""
    if rule in KNOWN:
        return KNOWN[rule]
    digest = hashlib.sha256(rule.encode()).digest()
    turn = 2 * math.pi * int.from_bytes(digest[:2]) / 65536
    return _srgb((0.56, 0.66)[digest[2] % 2], 0.11 * math.cos(turn), 0.11 * math.sin(turn))


def _srgb(lightness: float, a: float, b: float) -> str:
    """From Oklab (Ottosson, 2020), where equal lightness looks equally light whatever the hue."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    shown = (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear)
    return "#" + "".join(f"{round(255 * min(max(v, 0.0), 1.0)):02x}" for v in shown)


def styles(contenders: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """From (rule, label) pairs to each label's style; the shortest label of a rule is solid."""
    drawn: dict[str, Style] = {}
    seen: dict[str, int] = {}
    for rule, label in sorted(set(contenders), key=lambda pair: (pair[0], len(pair[1]), pair[1])):
        k = seen[rule] = seen.get(rule, -1) + 1
        drawn[label] = Style(colour(rule), DASHES[k % len(DASHES)], MARKERS[(k + k // len(DASHES)) % len(MARKERS)])
    return drawn
