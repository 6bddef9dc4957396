"""Axes of accuracy: stretched where high accuracies are shown, plain where not."""

import numpy as np
import pytest

from altprop.report import figures, scales


def test_the_stretched_scale_can_be_undone_and_equal_ratios_of_the_error_are_equal_steps() -> None:
    accuracy = np.linspace(0, 1, 11)
    np.testing.assert_allclose(scales.back(scales.stretched(accuracy)), accuracy, atol=1e-12)
    places = scales.stretched(1 + scales.ROOM - np.array([0.4, 0.2, 0.1, 0.05]))
    np.testing.assert_allclose(np.diff(places), np.log(2))


@pytest.mark.parametrize(("best", "scale"), [(0.6, "linear"), (0.97, "function"), (1.2, "function")])
def test_only_axes_of_high_accuracies_are_stretched(best: float, scale: str) -> None:
    _, axes = figures.empty("title", "words")
    axes.plot([1, 2], [0.3, best])
    scales.percent(axes)
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert 0 <= low <= 0.3 and min(best, 1) <= high <= 1 + scales.ROOM
    assert all(low <= tick <= high for tick in axes.get_yticks()) or scale == "linear"
