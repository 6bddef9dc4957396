"""What EProp refuses, its memory in time, and what learning adds; see `altprop.oracles.spiking` for its updates."""

from functools import partial

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.e_prop import EProp
from every import accuracy, batches, teach


def net(**options: object) -> nn.Sequential:
    return nets.recurrent_spiking([6, 8], classes=3, **options)


def test_bad_arguments_and_nets() -> None:
    with pytest.raises(UsageError, match="choose 'random' or 'symmetric'"):
        EProp(net(), feedback="none")
    with pytest.raises(UsageError, match="no weights of its own lead to the others"):
        EProp(nets.recurrent_spiking([6, 8, 7], classes=3), feedback="symmetric")
    with pytest.raises(UsageError, match="it needs recurrent spiking blocks"):
        EProp(nets.mlp([6, 8], classes=3))
    with pytest.raises(UsageError, match="must be a mean over time"):
        EProp(nn.Sequential(*net()[:2], nn.Flatten(), nets.Block(nn.Linear(64, 3))))
    with pytest.raises(UsageError, match="it needs an output block with 4 outputs"):
        EProp(net(), Problem((6,), 4))
    with pytest.raises(UsageError, match="block 1 has parameters but is no recurrent spiking block"):
        EProp(nn.Sequential(net()[0], nn.Linear(6, 6), *net()[1:]))
    with pytest.raises(UsageError, match="block 2 lives in time"):
        EProp(nn.Sequential(*net()[:2], nets.LeakyRate(nn.Identity()), *net()[2:]))
    with pytest.raises(UsageError, match="takes sequences"):
        EProp(net(steps=None))
    with pytest.raises(UsageError, match="takes sequences"):
        EProp(net(steps=None), Problem((None, 6), 3)).step(torch.rand(2, 0, 6), torch.tensor([0, 1]))


def test_it_predicts_what_the_net_gives() -> None:
    rule = EProp(net(steps=None, readout=0.6).double(), Problem((None, 6), 3))
    x = torch.rand(5, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(rule(x), rule.net(x))


@pytest.mark.parametrize("readout", [0.0, 0.5])
def test_memory_does_not_grow_with_time(readout: float) -> None:
    peaks = []
    for steps in (5, 50):
        rule = EProp(net(steps=None, readout=readout), Problem((None, 6), 3))
        x, y = torch.rand(7, steps, 6), torch.randint(3, (7,))
        rule.step(x, y)
        with Trace({}) as trace:
            rule.learn(x, y)  # without the checks of the batch, which look at all of it
        peaks.append(trace.peak_bytes)
    assert peaks[0] == peaks[1]


def test_a_regression_on_sequences() -> None:
    problem = Problem((None, 6), 3, "regression")
    rule = EProp(net(steps=None), problem, optimizer=partial(torch.optim.Adam, lr=1e-2))
    x, y = torch.rand(16, 5, 6), torch.rand(16, 3)
    losses = [float(rule.step(x, y)["loss"]) for _ in range(100)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_frozen_part_stays_as_it_is() -> None:
    frozen = net()
    frozen[1].recurrent.requires_grad_(False)
    before = [p.clone() for p in frozen[1].parameters()]
    rule = EProp(frozen)
    rule.step(torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1]))
    moved = [not torch.equal(p, old) for p, old in zip(frozen[1].parameters(), before, strict=True)]
    assert moved == [True, True, False]


@pytest.mark.slow
def test_learning_the_recurrent_weights_helps_to_read_the_digits_row_by_row() -> None:
    found = []
    for learning in (True, False):
        made = nets.recurrent_spiking([64, 128], classes=10, steps=8, rows=True)
        made[1].recurrent.requires_grad_(learning)
        rates = {"blocks": partial(torch.optim.Adam, lr=3e-3), "blocks.3": partial(torch.optim.Adam, lr=3e-2)}
        rule = EProp(made, Problem((64,), 10), optimizer=rates)
        found.append(accuracy(teach(rule, batches(32, 15 * 38)))[""])
    assert found[0] > found[1] + 0.02, found
