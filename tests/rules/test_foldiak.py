"""Földiák's rule: what it refuses, keeps and says; its updates are compared in `altprop.oracles`."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.nets.settling import Settling
from altprop.rule import Problem
from altprop.rules.hebbian.foldiak import Foldiak
from competing import SGD, batch


def small(**options: Any) -> Foldiak:
    return Foldiak(nets.mlp([6, 8]), Problem((6,), 4), optimizer=SGD, **options)


def units(rule: Foldiak) -> Settling:
    (found,) = (m for m in rule.net.modules() if isinstance(m, Settling))
    return found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": 0.0}, r"Foldiak\(p=0.0, .* p lies between 0 and 1"),
        ({"p": 1.0}, "p lies between 0 and 1"),
        ({"lateral": -1.0}, "factors of the rates are not below 0"),
        ({"threshold": -0.1}, "factors of the rates are not below 0"),
        ({"slope": 0.0}, r"Settling\(slope=0.0, .* a slope above 0"),
        ({"sweeps": 0}, "at least one sweep"),
        ({"pace": 0.0}, "a pace above 0 and at most 1"),
        ({"pace": 1.5}, "a pace above 0 and at most 1"),
        ({"settle": 0.0}, "it must be above 0"),
        ({"readout": "vote"}, "choose one of softmax"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(**options)


def test_the_problem_must_be_given() -> None:
    with pytest.raises(UsageError, match="the problem must be given"):
        Foldiak(nets.mlp([6, 8]))


def test_thresholds_begin_where_a_share_p_of_the_first_batch_lies_above() -> None:
    rule = small(p=0.25, threshold=0.0)
    x, y = batch(32, 6)
    rule.step(x, y)
    drive = x @ nets.mlp([6, 8])[0].affine.weight.T
    assert torch.equal((drive > units(rule).thresholds).sum(0), torch.full((8,), 8))


def test_units_that_never_answer_come_to_life() -> None:
    rule = small()
    rule.assign(units(rule).thresholds, torch.full((8,), 3.0))
    x, y = batch(32, 6)
    assert float(rule.step(x, y)["activity"]) == 0.0
    for _ in range(500):
        last = rule.step(x, y)
    assert bool((rule.net(x).sum(0) > 0).all()) and float(last["activity"]) == pytest.approx(0.125, abs=0.05)


def test_blank_inputs_do_no_harm() -> None:
    rule = small()
    _, y = batch(32, 6)
    for x in (torch.zeros(32, 6), torch.zeros(32, 6), batch(32, 6)[0]):
        rule.step(x, y)
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


def test_lateral_weights_stay_symmetric_and_at_most_zero_under_any_optimizer() -> None:
    adam = partial(torch.optim.Adam, lr=0.05, weight_decay=0.01)
    rule = Foldiak(nets.mlp([6, 8]), Problem((6,), 4), optimizer=adam)
    for _ in range(30):
        rule.step(*batch(32, 6))
    w = units(rule).weight.detach()
    assert bool((w < 0).any()) and bool((w <= 0).all()) and torch.equal(w, w.T) and not bool(w.diagonal().any())


def test_what_does_not_settle_is_said() -> None:
    rule = small(lateral=0.0, threshold=0.0, sweeps=3)
    x, y = batch(32, 6)
    assert float(rule.step(x, y)["unsettled"]) > 0.5
    units(rule).sweeps = 100
    assert float(rule.step(x, y)["unsettled"]) == 0.0


def test_predictions_settle_and_do_not_depend_on_the_batch() -> None:
    rule = Foldiak(nets.conv((1, 8, 8), [3, 4]), Problem((1, 8, 8), 4), optimizer=SGD).eval()
    x, y = batch(16, 1, 8, 8)
    for _ in range(20):
        rule.step(x, y)
    codes = rule.net(x)
    assert set(codes.unique().tolist()) <= {0.0, 1.0} and 0.0 < float(codes.mean()) < 1.0
    assert torch.equal(codes, torch.cat([rule.net(x[i : i + 1]) for i in range(16)]))


def test_frozen_blocks_keep_their_activation() -> None:
    net = nets.mlp([6, 8, 5])
    net[0].requires_grad_(False)
    rule = Foldiak(net, Problem((6,), 4), optimizer=SGD)
    before = net[0].affine.weight.clone()
    rule.step(*batch(32, 6))
    assert isinstance(rule.net[0].activation, nn.ReLU) and torch.equal(before, rule.net[0].affine.weight)
    assert rule.claims.training_only is False
    assert Foldiak(net, Problem((6,), 4), readout="ridge").claims.training_only is True
