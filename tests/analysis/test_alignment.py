"""Alignment to backprop: known cosines and ratios."""

import math
from functools import partial

import pytest
import torch

from altprop import nets
from altprop.analysis.alignment import by_backprop, compare, updates
from altprop.rules.energy.fixed_prediction import FixedPrediction
from altprop.rules.energy.incremental_predictive_coding import IncrementalPredictiveCoding
from altprop.rules.energy.predictive_coding import PredictiveCoding
from altprop.rules.reference.backprop import Backprop
from energy_nets import batch, mlp


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
def test_a_rule_that_is_backprop_has_cosine_and_ratio_one(output: str) -> None:
    rule = FixedPrediction(mlp([6, 9, 8]), output=output)
    x, y = batch((5, 6))
    before = [p.detach().clone() for p in rule.parameters()]
    found, residual = updates(rule, x, y)
    for row in compare(found, by_backprop(rule, x, y)):
        assert row.cosine == pytest.approx(1.0, abs=1e-12) and row.ratio == pytest.approx(1.0, rel=1e-12)
    assert math.isnan(residual) and list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    assert all(torch.equal(a, b) for a, b in zip(before, rule.parameters(), strict=True))


def test_backprop_itself_and_its_opposite() -> None:
    rule = Backprop(mlp([6, 9]))
    x, y = batch((5, 6))
    found, _ = updates(rule, x, y)
    expected = by_backprop(rule, x, y)
    same = [(r.part, round(r.cosine, 12), round(r.ratio, 12)) for r in compare(found, expected)]
    assert same == [("blocks.0", 1.0, 1.0), ("blocks.1", 1.0, 1.0)]
    half = {part: -0.5 * row for part, row in found.items()}
    assert all(r.cosine == pytest.approx(-1) and r.ratio == pytest.approx(0.5) for r in compare(half, expected))
    assert all(math.isnan(r.cosine) and r.ratio == 0 for r in compare({}, expected))


@pytest.mark.filterwarnings("ignore:PredictiveCoding.sweeps=1")
def test_several_updates_of_a_step_are_summed_from_the_same_weights() -> None:
    net = mlp([6, 9, 8], act="tanh")
    x, y = batch((5, 6))
    still = partial(torch.optim.SGD, lr=0.0)
    one = IncrementalPredictiveCoding(net, sweeps=3, rate=0.1, optimizer=still)
    found, _ = updates(one, x, y)
    separate = [updates(PredictiveCoding(net, sweeps=s, rate=0.1, optimizer=still), x, y)[0] for s in (1, 2)]
    free = by_backprop(one, x, y)["blocks.2"]  # before the first sweep only the output block has an error
    torch.testing.assert_close(found["blocks.2"], free + separate[0]["blocks.2"] + separate[1]["blocks.2"])


def test_a_small_rate_is_backprop_made_small() -> None:
    net = nets.mlp([6, 9, 8, 7], classes=3, act="gelu").double()
    rule = PredictiveCoding(net, rate=0.01)
    x, y = batch((32, 6))
    found, residual = updates(rule, x, y)
    rows = compare(found, by_backprop(rule, x, y))
    assert all(row.cosine > 0.995 for row in rows)
    assert [row.ratio for row in rows] == sorted(row.ratio for row in rows) and rows[0].ratio < 1e-3
    assert residual > 0.1
