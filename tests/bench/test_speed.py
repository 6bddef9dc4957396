"""The page of what steps cost: its verdict, and which step is traced."""

import pandas as pd

from altprop.bench import speed


def test_goals_are_judged_by_the_worst_feedback_rule_and_its_variants() -> None:
    rows = [("backprop", 1.0, 1.05), ("direct-feedback-alignment", 0.8, 1.1), ("predsim", 2.0, 1.9),
            ("sign-symmetry, magnitudes of each batch (brSF)", 1.2, 1.2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["rule", "step / backprop", "step / floor"])
    said = speed.goals(table)
    assert "yes (the most: 1.2, sign-symmetry, magnitudes of each batch (brSF))" in said and said.endswith("yes (0.8).")
    said = speed.goals(table.assign(**{"step / backprop": 1.1, "step / floor": 1.31}))
    assert said.count("**no**") == 2


def test_whitening_that_is_done_ever_more_seldom_is_not_traced() -> None:
    """A step that whitens anew has a decomposition of 784 x 784, and more operations than two forward passes."""
    whitened = speed.lane("hebbian-ica").operations
    assert whitened < 3 * speed.lane("hebbian-pca").operations
