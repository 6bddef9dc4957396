"""What STDP refuses, what it keeps, and what few neurons learn by it; its changes: `altprop.oracles.spike_times`."""

from functools import partial

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.stdp import STDP
from every import accuracy, batches, teach

PROBLEM = Problem((6,), 3)


def net(**options: object) -> nn.Sequential:
    return nets.spike_coded([6, 8], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minus": -1.0}, "minus=-1.0"),
        ({"tau_plus": 0.0}, "tau_plus=0.0"),
        ({"settle": 0.0}, "settle=0.0"),
        ({"readout": "best"}, "readout='best'"),
    ],
)
def test_bad_arguments(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        STDP(net(), PROBLEM, **options)


@pytest.mark.parametrize(
    ("made", "problem", "words"),
    [
        (net(classes=3), PROBLEM, "it brings its own readout"),
        (net(), Problem((6,), 3, "regression"), "its readout learns classes"),
        (nets.mlp([6, 8]), PROBLEM, "block 0 is not a linear layer with leaky integrate-and-fire neurons"),
        (nets.spiking([6, 8]), PROBLEM, r"block 0 sees \(6,\) for a sample, and not spikes over time"),
        (nn.Sequential(nn.Flatten()), PROBLEM, "it needs blocks of spiking neurons"),
        (net(), Problem((7,), 3), "does not go through its blocks"),
    ],
)
def test_nets_it_refuses(made: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        STDP(made, problem)


def test_weights_stay_between_their_bounds() -> None:
    made = net()
    with torch.no_grad():
        made[1].affine.weight.sub_(0.3)  # some below 0
    rule = STDP(made, PROBLEM, mu=0.0, w_max=0.8, optimizer=partial(torch.optim.SGD, lr=50.0))
    for _ in range(5):
        rule.step(torch.rand(9, 6), torch.randint(3, (9,)))
        weight = made[1].affine.weight.detach()
        assert float(weight.min()) >= 0.0 and float(weight.max()) <= 0.8


def test_a_frozen_block_stays_as_it_is() -> None:
    made = net()
    made[1].requires_grad_(False)
    before = [p.clone() for p in made.parameters()]
    STDP(made, PROBLEM).step(torch.rand(9, 6), torch.randint(3, (9,)))
    assert all(torch.equal(p, old) for p, old in zip(made.parameters(), before, strict=True))


def test_few_neurons_learn_what_digits_look_like() -> None:
    found = []
    for learning in (True, False):
        made = nets.spike_coded([64, 24])
        made[1].requires_grad_(learning)
        rates = {"blocks": partial(torch.optim.SGD, lr=1.0), "head": partial(torch.optim.Adam, lr=1e-2)}
        rule = STDP(made, Problem((64,), 10), optimizer=rates)
        found.append(accuracy(teach(rule, batches(32, 10 * 38)))[""])
    assert found[0] > found[1] + 0.03, found
