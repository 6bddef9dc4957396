"""What ThreeFactor refuses, and what it remembers; its updates are compared in `altprop.oracles.three_factor`."""

from functools import partial

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.three_factor import ThreeFactor
from every import accuracy, batches, teach

SGD = partial(torch.optim.SGD, lr=0.1)


def mlp(**options: object) -> nn.Sequential:
    return nets.mlp([6, 8], classes=3, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"modulator": "joy"}, "choose 'error' or 'reward'"),
        ({"decay": 1.0}, "below 1"),
        ({"streams": 0}, "there must be a stream"),
        ({"noise": 0.0}, "noise must be positive"),
        ({"memory": -0.1}, "at least 0"),
    ],
)
def test_bad_arguments(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ThreeFactor(mlp(), **options)


def test_nets_it_refuses() -> None:
    with pytest.raises(UsageError, match="block 0 is not a linear layer with an activation"):
        ThreeFactor(nets.conv((1, 8, 8), [2], classes=3), Problem((1, 8, 8), 3))
    with pytest.raises(UsageError, match="block 0 is not a linear layer with an activation"):
        ThreeFactor(mlp(norm=True))
    with pytest.raises(UsageError, match="it learns classes or actions"):
        ThreeFactor(mlp(), Problem((6,), 3, "regression"))


def test_rows_are_streams_where_there_are_traces() -> None:
    rule = ThreeFactor(mlp(), modulator="reward", decay=0.5, streams=2)
    with pytest.raises(UsageError, match="the batch has 3 rows, and each stream has a trace"):
        rule.act(torch.rand(3, 6))
    with pytest.raises(UsageError, match="call act"):
        rule.reinforce(torch.rand(2))
    rule.act(torch.rand(2, 6))
    assert bool(rule.trace_0.any()) and bool(rule.trace_1.any())
    rule.forget()
    assert not bool(rule.trace_0.any())
    with pytest.raises(UsageError, match="call act"):
        rule.reinforce(torch.rand(2))


def test_a_frozen_block_stays_as_it_is() -> None:
    for modulator in ("error", "reward"):
        net = mlp()
        net[1].requires_grad_(False)
        before = net[1].affine.weight.clone()
        rule = ThreeFactor(net, modulator=modulator, optimizer=SGD)
        rule.step(torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1]))
        assert torch.equal(net[1].affine.weight, before)


def test_the_mean_reward_follows_the_rewards() -> None:
    rule = ThreeFactor(mlp(), modulator="reward", memory=0.75)
    rule.act(torch.rand(4, 6))
    assert float(rule.reinforce(torch.tensor([1.0, 1.0, 0.0, 2.0]))["loss"]) == -1.0
    assert float(rule.mean_reward) == 0.25


def test_a_reward_alone_teaches_the_digits() -> None:
    net = nets.mlp([64, 64], classes=10)
    rule = ThreeFactor(net, modulator="reward", noise=0.5, optimizer=partial(torch.optim.Adam, lr=3e-3))
    before = accuracy(rule)[""]
    after = accuracy(teach(rule, batches(32, 15 * 38)))[""]
    assert before < 0.3 and after > 0.5, (before, after)
