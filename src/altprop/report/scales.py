"""Axes of accuracy: in per cent, and stretched at the upper end, where good rules differ."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter
from numpy.typing import NDArray

TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
HIGH = 0.9
"""An axis that reaches this is stretched."""
ROOM = 0.006
"""What is added to the error, so that an accuracy of 1 has a place."""


def percent(axes: Axes, low: float | None = None) -> None:
    """Accuracy in per cent; an interval may reach beyond what an accuracy can be, the axis does not.

    low: where the axis begins; by default at the lowest value.
    """
    least, most = axes.get_ylim()
    low = max(0.0, least) if low is None else low
    if most < HIGH:
        axes.set_ylim(low, most)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        return
    axes.set_yscale("function", functions=(stretched, back))
    axes.set_ylim(low, min(most, 1 + ROOM / 4))
    axes.set_yticks([tick for tick in TICKS if low <= tick <= most])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def stretched(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal steps are equal ratios of the error."""
    return np.negative(np.log(np.maximum(1 + ROOM - accuracy, 1e-9)))


def back(place: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 + ROOM - np.exp(-place)
