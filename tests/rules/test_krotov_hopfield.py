"""Krotov and Hopfield's rule: what it refuses, and what it does with inputs and weights that say nothing; updates are
compared in `altprop.oracles`."""

from typing import Any

import pytest
import torch

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.krotov_hopfield import KrotovHopfield
from competing import SGD, batch


def small(**options: Any) -> KrotovHopfield:
    return KrotovHopfield(nets.mlp([6, 8]), Problem((6,), 4), optimizer=SGD, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": 0.5}, r"norm=0.5, .* a norm of at least 1"),
        ({"rank": 1}, "a rank of at least 2"),
        ({"rank": 9}, r"rank=9\): a block has 8 units; take a lower rank"),
        ({"delta": -0.1}, "a delta not below 0"),
        ({"losers": "tied"}, 'losers="sphere" or "free"'),
        ({"settle": 0.0}, "it must be above 0"),
        ({"readout": "vote"}, "choose one of softmax"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(**options)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("losers", ["sphere", "free"])
def test_blank_inputs_and_units_do_no_harm(norm: float, losers: str) -> None:
    rule = small(norm=norm, losers=losers)
    layer = rule.net[0].affine
    rule.assign(layer.weight, torch.cat([torch.zeros(4, 6), layer.weight[4:].detach()]))
    x, y = batch(32, 6)
    for inputs in (torch.zeros(32, 6), x, torch.zeros(32, 6)):
        rule.step(inputs, y)
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


def test_units_that_no_input_drives_are_counted_as_dead() -> None:
    rule = small(delta=0.0)
    layer = rule.net[0].affine
    x, y = batch(32, 6)
    rule.assign(layer.weight, torch.cat([x[:2], -torch.ones(6, 6)]))
    assert float(rule.step(x, y)["dead"]) == 0.75


def test_units_that_begin_long_leave_others_their_turn() -> None:
    x, y = batch(256, 6)
    dead = []
    for length in (0.3, 5.0):
        rule = KrotovHopfield(nets.soft_hebb_mlp([6, 64], radius=length, positive=False), Problem((6,), 4))
        for _ in range(200):
            last = rule.step(x - x.mean(0), y)
        dead.append(float(last["dead"]))
    assert dead[1] < 0.2 < 0.5 < dead[0]
