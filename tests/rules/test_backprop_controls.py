"""The three controls of claims about memory: what they cost, random numbers, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules.reference.accumulated_backprop import AccumulatedBackprop
from altprop.rules.reference.backprop import Backprop
from altprop.rules.reference.checkpointed_backprop import CheckpointedBackprop
from altprop.rules.reference.deep_supervision import DeepSupervision
from steps import gradients, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)), torch.arange(shape[0]) % 4


def deep(kind: type[Rule], depth: int, **options: object) -> Rule:
    return kind(nets.mlp([20] * depth, classes=4), optimizer=SGD, **options)


def test_fewest_bytes_with_about_the_square_root_of_the_blocks() -> None:
    x, y = batch(64, 20)
    high = {k: peaks(partial(deep, CheckpointedBackprop, segments=k), x, y)[-1] for k in (1, 2, 4)}
    own = peaks(partial(deep, CheckpointedBackprop), x, y)[-1]
    assert high[1] == pytest.approx(peaks(partial(deep, Backprop), x, y)[-1], rel=0.01)
    assert own < high[4] < high[2] < high[1]


def test_a_segment_is_computed_twice_but_for_the_last() -> None:
    rule = CheckpointedBackprop(nets.mlp([6, 8, 8, 8], classes=4), segments=2, optimizer=SGD)
    x, y = batch(16, 6)
    with Trace({}) as checkpointed:
        rule.step(x, y)
    whole = Backprop(nets.mlp([6, 8, 8, 8], classes=4), optimizer=SGD)
    with Trace({}) as plain:
        whole.step(x, y)
    assert checkpointed.operations - plain.operations == 2 * 16 * (6 * 8 + 8 * 8)


def test_dropout_is_drawn_alike_both_times() -> None:
    def net() -> nn.Sequential:
        one, two, output = nets.mlp([6, 40, 30], classes=4)
        return nn.Sequential(one, nn.Dropout(0.5), two, output)

    found = []
    for kind in (Backprop, CheckpointedBackprop):
        torch.manual_seed(0)
        found.append(gradients(kind(net(), Problem((6,), 4), optimizer=SGD), *batch(16, 6)))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])


def test_micro_batches_need_fewer_bytes_and_no_more_operations() -> None:
    x, y = batch(256, 20)
    high = [peaks(partial(deep, AccumulatedBackprop, micro_batches=k), x, y)[-1] for k in (1, 4)]
    assert high[0] == pytest.approx(peaks(partial(deep, Backprop), x, y)[-1], rel=0.01)
    assert high[1] < 0.5 * high[0]
    counts = []
    for k in (1, 4):
        rule = deep(AccumulatedBackprop, 4, micro_batches=k)
        with Trace({}) as trace:
            rule.step(x, y)
        counts.append(trace.operations)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("kind", [CheckpointedBackprop, AccumulatedBackprop, DeepSupervision])
def test_the_loss_is_that_of_the_whole_batch(kind: type[Rule]) -> None:
    net = nets.mlp([6, 8], classes=4)
    x, y = batch(7, 6)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(net(x), y)
    torch.testing.assert_close(kind(net, optimizer=SGD).step(x, y)["loss"], expected)


@pytest.mark.parametrize("kind", [CheckpointedBackprop, AccumulatedBackprop, DeepSupervision])
def test_regression_and_frozen_blocks(kind: type[Rule]) -> None:
    net = nets.mlp([6, 8, 8], classes=2)
    net[0].requires_grad_(False)
    x, _ = batch(7, 6)
    y = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        h = net[:2](x)
        expected = (net[2](h) - y).t() @ h / 7
    found = gradients(kind(net, Problem((6,), 2, "regression"), optimizer=SGD), x, y)
    torch.testing.assert_close(found["net.2.affine.weight"], expected)
    assert not any(name.startswith(("net.0", "heads.0")) for name in found) and "net.1.affine.weight" in found


@pytest.mark.parametrize("kind", [CheckpointedBackprop, AccumulatedBackprop])
def test_blocks_may_share_weights(kind: type[Rule]) -> None:
    twice = nn.Linear(6, 6)
    found = []
    for each in (Backprop, kind):
        net = nn.Sequential(twice, nn.Tanh(), twice, nn.Tanh(), nn.Linear(6, 4, bias=False))
        with torch.no_grad():
            net[-1].weight.fill_(0.1).mul_(torch.arange(24.0).view(4, 6))
        optimizer = partial(torch.optim.SGD, lr=0.0)
        found.append(gradients(each(net, Problem((6,), 4), optimizer=optimizer), *batch(8, 6)))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)


def test_reasons_why_not() -> None:
    net = nets.mlp([6, 8, 8], classes=4)
    for segments in (0, 4):
        with pytest.raises(UsageError, match="the net has 3 blocks, take from 1 to 3"):
            CheckpointedBackprop(net, segments=segments)
    norm = nn.Sequential(nets.Block(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()), nn.Linear(8, 4))
    with pytest.raises(UsageError, match="would count every batch twice"):
        CheckpointedBackprop(norm)
    with pytest.raises(UsageError, match="micro_batches=0 must be 1 or more"):
        AccumulatedBackprop(net, micro_batches=0)
    for wrong in ({"block_size": 0}, {"weight": -1.0}):
        with pytest.raises(UsageError, match="must be 1 or more, weight"):
            DeepSupervision(net, **wrong)
    for kind in (CheckpointedBackprop, AccumulatedBackprop, DeepSupervision):
        with pytest.raises(UsageError, match="output block with 4 outputs"):
            kind(nets.mlp([6, 4]), Problem((6,), 4))
