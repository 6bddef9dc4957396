"""Colours stay with their rule, and stay apart, for readers with any colour vision."""

import itertools

import numpy as np
import pytest

from altprop.report import colours

# Machado, Oliveira and Fernandes (2009), doi:10.1109/TVCG.2009.113: full deficiency, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen(colour: str, vision: str) -> np.ndarray:
    """The colour in Oklab (Ottosson 2020), as that vision sees it."""
    return TO_LAB @ np.cbrt(TO_LMS @ np.clip(VISION[vision] @ linear(colour), 0, 1))


@pytest.mark.parametrize("vision", VISION)
def test_known_rules_are_told_apart(vision: str) -> None:
    for one, other in itertools.combinations(colours.KNOWN.values(), 2):
        assert np.linalg.norm(seen(one, vision) - seen(other, vision)) > 0.09, (one, other)


@pytest.mark.parametrize("rule", [*colours.KNOWN, "pepita", "equilibrium-propagation", "my-rule"])
def test_every_colour_shows_on_light_and_on_dark(rule: str) -> None:
    luminance = float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colours.colour(rule)))
    assert 1.05 / (luminance + 0.05) > 2.1
    assert (luminance + 0.05) / 0.06 > 2.1


def test_an_unknown_rule_keeps_its_colour() -> None:
    assert colours.colour("pepita") == colours.colour("pepita") == "#2aa894"
    assert colours.colour("pepita") != colours.colour("my-rule")


def test_contenders_of_one_rule_share_the_colour_and_differ_in_dash_and_marker() -> None:
    drawn = colours.styles([("backprop", "backprop · linear"), ("backprop", "backprop"), ("soft-wta", "soft-wta")])
    plain, linear_one = drawn["backprop"], drawn["backprop · linear"]
    assert plain.colour == linear_one.colour != drawn["soft-wta"].colour
    assert plain.dash[0] == "solid" != linear_one.dash[0]
    assert plain.marker != linear_one.marker


def test_many_contenders_of_one_rule_never_look_the_same() -> None:
    drawn = colours.styles([("a", f"a · {k}") for k in range(20)])
    assert len({(style.dash, style.marker) for style in drawn.values()}) == 20
