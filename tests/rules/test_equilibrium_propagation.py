"""Equilibrium propagation against the gradient of settled outputs, by autograd through every sweep."""

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.equilibrium_propagation import EquilibriumPropagation
from settled_nets import batch, distance, settled_gradients, small_net, sweep, unrolled
from steps import gradients

EXACT = {"sweeps": 500, "tolerance": 1e-15}
KINDS = pytest.mark.parametrize(
    ("act", "output", "feedback"),
    [("tanh", True, 1.0), ("sigmoid", True, 1.0), ("tanh", True, 0.5), ("tanh", False, 1.0), ("sigmoid", False, 0.7)],
)


def error(nudge: str, beta: float, net: nn.Sequential, **options: object) -> float:
    """How far one step's gradients are from those of the settled outputs."""
    x, y = batch(6, 5, 3)
    feedback = float(options.get("feedback", 1.0))
    expected = settled_gradients(net, x, y, feedback)
    rule = EquilibriumPropagation(net, Problem((5,), 3), nudge=nudge, beta=beta, **EXACT, **options)
    rule.solver = rule.nudged = type(rule.solver)(sweeps=500, tolerance=0.0)  # to the last bit, and no warning
    return distance(gradients(rule, x, y), expected)


@KINDS
@pytest.mark.parametrize(("nudge", "order"), [("positive", 1), ("negative", 1), ("centred", 2)])
def test_the_error_falls_as_a_power_of_beta(nudge: str, order: int, act: str, output: bool, feedback: float) -> None:
    betas = (1e-2, 1e-3) if order == 2 else (1e-3, 1e-4)
    far, near = (error(nudge, beta, small_net(5, 8, 7, 3, act=act, output=output), feedback=feedback) for beta in betas)
    assert near < 2e-3 and 0.95 * order < torch.log10(torch.tensor(far / near)) < 1.05 * order


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_holomorphic_nudges_are_exact_to_the_order_of_their_number(act: str) -> None:
    errors = [error("holomorphic", 0.3, small_net(5, 8, 7, 3, act=act), points=n) for n in (2, 4, 8, 16)]
    print(errors)
    assert errors[3] < 1e-7
