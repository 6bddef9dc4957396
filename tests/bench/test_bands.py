"""What is published of the feedback family lies where independent trials of the same net and budget lay."""

from pathlib import Path

import pytest

from altprop.bench.cases import label
from altprop.bench.publish import read_rows
from altprop.bench.stats import final

RESULTS = Path(__file__).parents[2] / "docs" / "results"
BANDS = {
    "backprop": (97.5, 97.7),
    "feedback-alignment": (97.1, 97.3),
    "kolen-pollack": (97.0, 97.3),
    "sign-symmetry": (97.7, 97.8),
    "sign-symmetry · fixed magnitudes": (97.7, 97.7),
    "sign-symmetry · magnitudes of each batch": (97.3, 97.6),
    "direct-feedback-alignment": (96.6, 96.6),
    "direct-random-target-projection": (93.5, 93.6),
}
"""Test accuracy in per cent of two seeds of another implementation: 784-256-256-10 of tanh units, gradient descent with
momentum in batches of 64, 5 epochs, MNIST. Sign-DFA is not among them: 92.2 and 92.9 there, 91.3 here."""
WIDTH = 0.7


@pytest.mark.parametrize("name", BANDS)
def test_mean_accuracy_lies_in_its_band(name: str) -> None:
    last = final(read_rows(RESULTS / "feedback"))
    own = last[[label(*names) == name for names in zip(last["rule"], last["variant"], strict=True)]]
    low, high = BANDS[name]
    assert own["seed"].nunique() == 3
    assert low - WIDTH <= 100 * own["value"].mean() <= high + WIDTH
