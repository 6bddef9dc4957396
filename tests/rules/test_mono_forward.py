"""Mono-Forward against its local losses differentiated by hand, and against what it promises."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.mono_forward import MonoForward
from steps import learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % classes


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> MonoForward:
    return MonoForward(net.double(), Problem(shape, 4), optimizer=SGD, **options).double()


NETS = pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nets.mlp([6, 8, 7, 5]), (6,)),
        (lambda: nets.mlp([6, 8, 7], act="tanh", norm=True), (6,)),
        (lambda: nets.conv((2, 8, 8), [3, 5]), (2, 8, 8)),
        (lambda: nets.local((2, 8, 8), [(3, 4, 2), (5, 2, 1)], init="kaiming"), (2, 8, 8)),
        (lambda: nn.Sequential(nn.Flatten(), *nets.mlp([18, 7]), nn.Dropout(0.0)), (2, 3, 3)),
    ],
    ids=["relu", "tanh with layer norm", "conv with pooling", "local fields", "blocks without weights"],
)


@NETS
def test_updates_equal_gradients_through_one_whole_graph_cut_between_blocks(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape)
    x, y = batch(12, *shape)
    names = {p: n for n, p in rule.named_parameters()}
    a, total, expected = x, x.new_zeros(()), {}
    for i, block in enumerate(rule.net):
        a = block(a)
        if str(i) in rule.heads:
            logits = a.reshape(len(a), -1) @ rule.heads[str(i)].weight.t()
            total = total - (logits.exp() / logits.exp().sum(1, keepdim=True)).log()[range(len(y)), y].mean()
        a = a.detach()
    for p, g in zip(names, torch.autograd.grad(total, list(names)), strict=True):
        expected[names[p]] = p.detach() - 0.1 * g
    metrics = rule.step(x, y)
    for name, p in rule.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics["loss"] + metrics["local"], total.detach(), rtol=1e-10, atol=1e-12)


@NETS
def test_predictors_are_the_last_goodness_and_the_sum_of_all(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape).eval()
    x, y = batch(12, *shape)
    rule.step(x, y)
    a, scores = x, []
    for i, block in enumerate(rule.net):
        a = block(a)
        if str(i) in rule.heads:
            scores.append(a.reshape(len(a), -1) @ rule.heads[str(i)].weight.t())
    found = {name: predict(x) for name, predict in rule.predictors().items()}
    torch.testing.assert_close(found["last"], scores[-1])
    torch.testing.assert_close(found["sum"], sum(scores))
    assert found.keys() == {"last", "sum"}


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, c, widths = 16, 4, [12, 10, 9]
    rule = MonoForward(nets.mlp(widths), Problem((12,), c))
    x, y = torch.rand(b, 12, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    blocks = 2 * b * (12 * 10 + 10 * 9)  # forward and weight gradient
    heads = 3 * b * c * (10 + 9)  # forward, weight gradient, and what goes back into the block
    assert trace.operations == 2 * (blocks + heads)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: MonoForward(nets.mlp([20] * depth), Problem((20,), 4)).double(), x, y)
    assert len(set(found)) == 1, found


def test_a_block_has_learnt_before_the_next_one_is_entered() -> None:
    learnt = learnt_when_entered(rule_on(nets.mlp([6, 8, 7, 5]), 6), *batch(12, 6))
    assert learnt == [[False] * 3, [True, False, False], [True, True, False]]


def test_frozen_blocks_stay_while_their_projections_learn() -> None:
    net = nets.mlp([6, 8, 7])
    net[0].requires_grad_(False)
    rule = rule_on(net, 6)
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    rule.step(*batch(12, 6))
    same = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert same == {"net.0.affine.weight", "net.0.affine.bias"}


def test_reasons_why_not() -> None:
    problem = Problem((6,), 4)
    with pytest.raises(UsageError, match="build the net without classes"):
        MonoForward(nets.mlp([6, 8], classes=4), problem)
    with pytest.raises(UsageError, match="a regression has none"):
        MonoForward(nets.mlp([6, 8]), Problem((6,), 4, "regression"))
    with pytest.raises(UsageError, match="a block with parameters"):
        MonoForward(nn.Sequential(nn.Flatten()), problem)
    with pytest.raises(UsageError, match="leaves sizes open"):
        MonoForward(nets.conv((1, 8, 8), [3]), Problem((1, None, None), 4))
