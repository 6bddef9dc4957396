"""DeeperForward against its equations written out sample by sample, and against what it promises."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.deeper_forward import DeeperForward
from class_group_nets import CLASSES, NETS, batch
from steps import gradients, peaks

CHANNELS = {"mlp": (12, 12, 8), "conv": (8, 8, 8, 12), "local": (8, 8, 12)}
K = 5.0


def naive(net: nn.Sequential, channels: tuple[int, ...], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Each block's goodness, and what each block is given, sample by sample and class by class."""
    a = torch.stack([(row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt() for row in x])
    goodness, given = [], [a]
    for block, n in zip(net, channels, strict=True):
        h = block(a)
        own = n // CLASSES
        parts = [[row.reshape(n, -1)[c * own : (c + 1) * own] for c in range(CLASSES)] for row in h]
        goodness.append(torch.stack([torch.stack([part.mean() for part in row]) for row in parts]))
        flat = [
            torch.cat([((p - p.mean()) / (p.var(correction=0) + 1e-5).sqrt()).flatten() for p in row]) for row in parts
        ]
        normal = torch.stack(flat).view_as(h).detach()
        a = normal + a if normal.shape == a.shape else normal
        given.append(a)
    return goodness, given


@pytest.mark.parametrize("kind", NETS)
def test_gradients_and_predictions_equal_the_equations(kind: str) -> None:
    build, shape = NETS[kind]
    net = build().double()
    rule = DeeperForward(net, Problem(shape, CLASSES), optimizer=partial(torch.optim.SGD, lr=0.0), sharpness=K)
    x, y = batch(7, *shape)
    found = gradients(rule, x, y)
    goodness, given = naive(net, CHANNELS[kind], x)
    assert any(a.shape == b.shape for a, b in pairwise(given[:-1]))  # a residual is among them
    assert len(found) == 2 * len(net)
    for i, g in enumerate(goodness):
        loss = -(K * g).log_softmax(1)[range(len(y)), y].mean()
        weight, bias = torch.autograd.grad(loss, list(net[i].parameters()))
        torch.testing.assert_close(found[f"net.{i}.affine.weight"], weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[f"net.{i}.affine.bias"], bias, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rule(x), sum(goodness))
    torch.testing.assert_close(rule.last(x), goodness[-1])
    rule.span = (1, 1)
    torch.testing.assert_close(rule.predictors()["sum"](x), goodness[1])


@pytest.mark.parametrize("residual", [True, False])
def test_no_goodness_leaks_to_the_next_block(residual: bool) -> None:
    build, shape = NETS["conv"]
    net = build().double()
    rule = DeeperForward(net, Problem(shape, CLASSES), residual=residual)
    seen: list[Tensor] = []
    for block in net:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    rule.step(*batch(7, *shape))
    assert len(seen) == len(net)
    for a in seen[1:]:
        means = a.reshape(7, CLASSES, -1).mean(2)
        torch.testing.assert_close(means, torch.zeros_like(means))


def test_residuals_only_where_asked_for() -> None:
    build, shape = NETS["mlp"]
    x, _ = batch(5, *shape)
    rules = [DeeperForward(build().double(), Problem(shape, CLASSES), residual=r) for r in (True, False)]
    first, second = ([g for _, g in rule._goodness(x)] for rule in rules)
    assert torch.equal(first[1], second[1]) and not torch.equal(first[2], second[2])


def test_an_input_of_other_scale_and_level_is_the_same() -> None:
    build, shape = NETS["mlp"]
    rule = DeeperForward(build().double(), Problem(shape, CLASSES))
    x, _ = batch(5, *shape)
    torch.testing.assert_close(rule(x), rule(50.0 * x + 7.0), rtol=1e-4, atol=1e-6)


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, widths = 16, [12, 20, 20, 8]
    rule = DeeperForward(nets.mlp(widths), Problem((12,), CLASSES))
    x, y = batch(b, 12)
    rule.step(x.float(), y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x.float(), y)
    assert trace.operations == 2 * 2 * b * (12 * 20 + 20 * 20 + 20 * 8)  # forward, and the weight's gradient


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: DeeperForward(nets.mlp([20] * (depth + 1)), Problem((20,), CLASSES)), x.float(), y)
    assert len(set(found)) == 1, found


def test_the_best_span_beats_or_equals_every_other() -> None:
    build, shape = NETS["mlp"]
    rule = DeeperForward(build().double(), Problem(shape, CLASSES), optimizer=partial(torch.optim.Adam, lr=1e-2))
    x, y = batch(60, *shape)
    for _ in range(20):
        rule.step(x[:40], y[:40])
    best = rule.best_span(x[40:], y[40:])

    def right(span: tuple[int, int]) -> int:
        rule.span = span
        return int((rule(x[40:]).argmax(1) == y[40:]).sum())

    spans = [(first, last) for first in range(3) for last in range(first, 3)]
    assert right(best) == max(right(span) for span in spans)


def test_spans_and_widths_that_cannot_be() -> None:
    problem = Problem((6,), CLASSES)
    for span in ((1, 0), (0, 3), (-1, 1)):
        with pytest.raises(UsageError, match=r"blocks with goodness are \[0, 1, 2\]"):
            DeeperForward(nets.mlp([6, 8, 8, 8]), problem, span=span)
    assert DeeperForward(nets.mlp([6, 8, 8, 8]), problem, span=(1, 2)).span == (1, 2)
    with pytest.raises(UsageError, match=r"block 0 has one value a class.*at least 8"):
        DeeperForward(nets.mlp([6, 4, 8]), problem)
    assert DeeperForward.supports(nets.mlp([6, 8, 4]), problem) is None


def test_blocks_without_parameters_are_passed_through_and_frozen_ones_stay() -> None:
    first, second, third = nets.mlp([6, 8, 8, 8]).double()
    second.requires_grad_(False)
    net = nn.Sequential(nn.Identity(), first, nn.Tanh(), second, third, nn.Dropout(0.9))
    rule = DeeperForward(net, Problem((6,), CLASSES))
    assert rule.learning == [1, 3, 4] and rule.span == (1, 4)
    before = [block.affine.weight.clone() for block in (first, second, third)]
    rule.step(*batch(12, 6))
    moved = [not torch.equal(block.affine.weight, w) for block, w in zip((first, second, third), before, strict=True)]
    assert moved == [True, False, True]
    assert rule(batch(3, 6)[0]).shape == (3, CLASSES)
