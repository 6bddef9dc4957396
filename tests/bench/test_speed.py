"""The page of what steps cost: its verdict, and which step is traced."""

import pandas as pd
import pytest

from altprop.analysis.trace import Trace
from altprop.bench import meter, speed


def test_goals_are_judged_by_the_worst_feedback_rule_and_its_variants() -> None:
    rows = [("backprop", 1.0, 1.05), ("direct-feedback-alignment", 0.8, 1.1), ("predsim", 2.0, 1.9),
            ("sign-symmetry, magnitudes of each batch (brSF)", 1.2, 1.2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["rule", "step / backprop", "step / floor"])
    said = speed.goals(table)
    assert "yes (the most: 1.2, sign-symmetry, magnitudes of each batch (brSF))" in said and said.endswith("yes (0.8).")
    said = speed.goals(table.assign(**{"step / backprop": 1.1, "step / floor": 1.31}))
    assert said.count("**no**") == 2


def test_a_cost_is_that_of_a_step_without_what_is_done_ever_more_seldom() -> None:
    x, y = speed.batch(20)
    rule, operations = speed.build("hebbian-ica", 12, 1), []
    for _ in range(3):
        with Trace(meter.named_tensors(rule)) as trace:
            rule.step(x, y)
        operations.append(trace.operations)
    found = meter.cost(speed.build("hebbian-ica", 12, 1), x, y)
    assert found.step_operations == operations[2] < operations[1]


@pytest.mark.filterwarnings("ignore:.*only rank")  # 1000 units on 784 inputs
def test_whitening_that_is_done_ever_more_seldom_is_not_traced() -> None:
    """A step that whitens anew has a decomposition of 784 x 784, and more operations than two forward passes."""
    whitened = speed.lane("hebbian-ica").operations
    assert whitened < 3 * speed.lane("hebbian-pca").operations
