"""The page of what steps cost: its verdict, and which step is traced."""

import pandas as pd
import pytest
import torch

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.bench import meter, speed
from altprop.rule import Problem
from altprop.rules.hebbian.pca import HebbianPCA


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


def test_a_cost_says_nothing_and_leaves_no_trace() -> None:
    rule = HebbianPCA(nets.mlp([8, 4]), Problem((8,), 3), inputs="as they are")
    x, y = torch.rand(20, 8) + 5.0, torch.arange(20) % 3
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    meter.cost(rule, x, y)  # a warning would be an error here
    assert all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())
    with pytest.warns(UserWarning, match="not centred"):  # the first batch that the rule itself sees
        rule.step(x, y)


def test_a_look_at_what_small_batches_showed_is_not_traced() -> None:
    x, y = torch.randn(24, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    rule = HebbianPCA(nets.mlp([8, 8]), Problem((8,), 3))  # 16 patches show a rank: three batches
    fresh = meter.cost(rule, x[:6], y[:6]).step_operations
    for i in range(0, 24, 6):
        rule.step(x[i : i + 6], y[i : i + 6])
    assert meter.cost(rule, x[:6], y[:6]).step_operations == fresh


@pytest.mark.filterwarnings("ignore:.*only rank")  # 1000 units on 784 inputs
def test_whitening_that_is_done_ever_more_seldom_is_not_traced() -> None:
    """A step that whitens anew has a decomposition of 784 x 784, and more operations than two forward passes."""
    whitened = speed.lane("hebbian-ica").operations
    assert whitened < 3 * speed.lane("hebbian-pca").operations
