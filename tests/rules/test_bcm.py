"""BCM: what it refuses, and what it does with inputs that say nothing; updates are compared in `altprop.oracles`."""

from typing import Any

import pytest
import torch

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.bcm import BCM
from competing import SGD, batch


def small(**options: Any) -> BCM:
    return BCM(nets.mlp([6, 8]), Problem((6,), 4), optimizer=SGD, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"competition": "soft"}, r"""BCM\(competition='soft', .* competition is "none" or "hard"""),
        ({"similarity": "distance"}, r"""similarity='distance'\): choose "dot" or "cosine"""),
        ({"lateral": True}, "the layer of block 0 is linear, .* build a net of convolutions, or leave lateral off"),
        ({"memory": 1.0}, "memory at least 0 and below 1"),
        ({"memory": -0.1}, "memory at least 0 and below 1"),
        ({"settle": 0.0}, "it must be above 0"),
        ({"readout": "vote"}, "choose one of softmax"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(**options)


def test_the_authors_convolutions_learn() -> None:
    options: dict[str, Any] = {"similarity": "cosine", "lateral": True, "memory": 0.5}
    rule = BCM(nets.conv((1, 8, 8), [3, 4]), Problem((1, 8, 8), 4), optimizer=SGD, **options)
    before = [block.affine.weight.detach().clone() for block in rule.net]
    x, y = batch(8, 1, 8, 8)
    for inputs in (x, torch.zeros_like(x), x):
        rule.step(inputs, y)
    after = [block.affine.weight.detach() for block in rule.net]
    assert all(bool(torch.isfinite(v).all()) and not torch.equal(w, v) for w, v in zip(before, after, strict=True))


def test_a_first_batch_that_nobody_answers_is_refused_and_changes_nothing() -> None:
    rule = small()
    layer = rule.net[0].affine
    rule.assign(layer.weight, -layer.weight.abs())
    before = layer.weight.detach().clone()
    with pytest.raises(UsageError, match="no unit of block 0 answers any input of the first batch, so all are dead"):
        rule.step(*batch(32, 6))
    assert torch.equal(before, layer.weight)


@pytest.mark.parametrize("competition", ["none", "hard"])
def test_later_inputs_that_are_blank_do_no_harm(competition: str) -> None:
    rule = small(competition=competition)
    x, y = batch(32, 6)
    for inputs in (x, torch.zeros(32, 6), x):
        rule.step(inputs, y)
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


def test_units_that_no_input_drives_are_counted_as_dead() -> None:
    rule = small()
    layer = rule.net[0].affine
    x, y = batch(32, 6)
    rule.assign(layer.weight, torch.cat([x[:2], -torch.ones(6, 6)]))
    assert float(rule.step(x, y)["dead"]) == 0.75
