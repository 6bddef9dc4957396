"""Competitive learning: what it refuses, and what it does with inputs that say nothing; updates are compared in
`altprop.oracles`."""

from typing import Any

import pytest
import torch

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.competitive import CompetitiveLearning
from competing import SGD, batch


def small(**options: Any) -> CompetitiveLearning:
    return CompetitiveLearning(nets.mlp([6, 8]), Problem((6,), 4), optimizer=SGD, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"competition": "weak"}, r"competition='weak'\): choose one of hard, soft"),
        ({"similarity": "angle"}, r"similarity='angle'\): choose one of dot, cosine, distance"),
        ({"pull": "hebb"}, r"pull='hebb'\): choose one of instar, oja"),
        ({"average": "mean"}, r"average='mean'\): choose one of patches, wins, history"),
        ({"winners": 0}, r"winners=0, .* at least one winner"),
        ({"winners": 9}, r"winners=9\): a block has 8 units; let fewer win"),
        ({"inverse_temperature": 0.0}, "a temperature above 0"),
        ({"homeostasis": -1.0}, "a homeostasis not below it"),
        ({"neighbours": -1.0}, r"neighbours=-1.0, .* a width not below 0"),
        ({"neighbours": 1.0, "average": "history"}, 'with neighbours average="wins" or "patches"'),
        ({"competition": "soft", "average": "history"}, "a soft competition has no winners"),
        ({"settle": 0.0}, "it must be above 0"),
        ({"readout": "vote"}, "choose one of softmax"),
        ({"penalty": 0.0}, "a positive penalty"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(**options)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "distance"])
@pytest.mark.parametrize("average", ["patches", "wins", "history"])
def test_blank_inputs_and_units_do_no_harm(similarity: str, average: str) -> None:
    rule = small(similarity=similarity, average=average)
    layer = rule.net[0].affine
    rule.assign(layer.weight, torch.cat([torch.zeros(4, 6), layer.weight[4:].detach()]))
    x, y = batch(32, 6)
    for inputs in (torch.zeros(32, 6), x, torch.zeros(32, 6)):
        rule.step(inputs, y)
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


def test_dead_units_are_counted_and_thresholds_raise_them() -> None:
    """Far from all inputs, a unit never wins; the winners' thresholds rise until it does."""
    for homeostasis, dead in ((0.0, 0.5), (10.0, 0.0)):
        rule = small(homeostasis=homeostasis)
        layer = rule.net[0].affine
        x, y = batch(64, 6)
        rule.assign(layer.weight, torch.cat([x[:4], x[4:8] - 3.0]))
        for _ in range(200):
            last = rule.step(x, y)
        assert float(last["dead"]) == dead


def test_neighbours_come_nearer_only_while_the_map_is_wide() -> None:
    """The width falls with the rate: at the end a winner takes nobody along."""
    for progress, alone in ((0.0, False), (0.7499, True)):
        rule = small(neighbours=1.0, average="patches", similarity="dot")
        rule.progress = progress
        before = rule.net[0].affine.weight.detach().clone()
        x, y = batch(1, 6)
        rule.step(x, y)
        moved = (rule.net[0].affine.weight.detach() != before).any(1)
        assert int(moved.sum()) == (1 if alone else 8)
