"""SPELA against its loss written out sample by sample, its class vectors, and what it promises."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.spela import SPELA, spread
from steps import learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    return normal(*shape), torch.arange(shape[0]).sqrt().long() % classes


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> SPELA:
    return SPELA(net.double(), Problem(shape, 4), optimizer=SGD, **options)


def walk(rule: SPELA, x: Tensor) -> list[Tensor]:
    """The activities of the learning blocks, the input of each block held fixed."""
    found = []
    for i, block in enumerate(rule.net):
        x = block(x)
        if f"vectors_{i}" in dict(rule.named_buffers()):
            found.append(x)
        x = x.detach()
    return found


def cosine(h: Tensor, v: Tensor) -> Tensor:
    return (h.flatten() * v).sum() / (h.square().sum() * v.square().sum()).sqrt()


NETS = pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nets.mlp([6, 8, 7, 5]), (6,)),
        (lambda: nets.mlp([6, 8, 7], act="tanh", norm=True, classes=4), (6,)),
        (lambda: nets.conv((2, 8, 8), [3, 5]), (2, 8, 8)),
        (lambda: nets.local((2, 8, 8), [(3, 4, 2), (5, 2, 1)], init="kaiming"), (2, 8, 8)),
        (lambda: nn.Sequential(nn.Flatten(), *nets.mlp([18, 7]), nn.Dropout(0.0)), (2, 3, 3)),
    ],
    ids=["relu", "tanh, layer norm, output block", "conv with pooling", "local fields", "blocks without weights"],
)


@NETS
def test_updates_equal_gradients_of_the_losses_written_out(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape)
    x, y = batch(12, *shape)
    losses = [
        torch.stack([torch.log(2 - cosine(row, v[label])) for row, label in zip(h, y, strict=True)]).mean()
        for h, v in zip(walk(rule, x), rule.buffers(), strict=True)
    ]
    parameters = dict(rule.named_parameters())
    gradients = torch.autograd.grad(torch.stack(losses).sum(), list(parameters.values()))
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters.values(), gradients, strict=True)]
    metrics = rule.step(x, y)
    for p, value in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics["loss"], losses[-1].detach())
    torch.testing.assert_close(metrics["local"], torch.stack(losses[:-1]).sum().detach() if losses[1:] else x.sum() * 0)


@NETS
def test_predictors_are_cosines(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape).eval()
    x, y = batch(12, *shape)
    rule.step(x, y)
    likeness = [
        torch.stack([torch.stack([cosine(row, m) for m in v]) for row in h])
        for h, v in zip(walk(rule, x), rule.buffers(), strict=True)
    ]
    found = {name: predict(x) for name, predict in rule.predictors().items()}
    torch.testing.assert_close(found["last"], likeness[-1])
    torch.testing.assert_close(found["sum"], sum(likeness))
    assert found.keys() == {"last", "sum"}


@pytest.mark.parametrize(("classes", "n"), [(2, 2), (2, 30), (3, 2), (10, 9), (10, 64), (10, 2000), (50, 60)])
def test_class_vectors_end_as_a_regular_simplex_where_it_fits(classes: int, n: int) -> None:
    v = spread(normal(classes, n))
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=v.dtype).fill_diagonal_(1.0)
    torch.testing.assert_close(v @ v.t(), expected, rtol=0, atol=2e-3)


def test_more_class_vectors_than_fit_keep_their_distance() -> None:
    v = spread(normal(8, 2))
    angles = torch.atan2(v[:, 1], v[:, 0]).sort().values
    torch.testing.assert_close(angles.diff(), torch.full((7,), math.pi / 4, dtype=v.dtype), rtol=0, atol=1e-2)
    torch.testing.assert_close(v.norm(dim=1), torch.ones(8, dtype=v.dtype))


def test_class_vectors_are_drawn_for_every_block_and_stay() -> None:
    def build(seed: int) -> SPELA:
        return rule_on(nets.mlp([6, 8, 8]), 6, generator=torch.Generator().manual_seed(seed))

    rule = build(0)
    first, second = (v.clone() for v in rule.buffers())
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(build(0).buffers(), (first, second), strict=True))
    assert not torch.equal(next(build(1).buffers()), first)
    rule.step(*batch(12, 6))
    assert all(torch.equal(a, b) for a, b in zip(rule.buffers(), (first, second), strict=True))


def test_operations_are_one_forward_product_and_one_weight_gradient_a_block() -> None:
    b = 16
    rule = SPELA(nets.mlp([12, 10, 9]), Problem((12,), 4))
    x, y = torch.rand(b, 12, generator=torch.Generator().manual_seed(0)), torch.arange(b) % 4
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    assert trace.operations == 2 * 2 * b * (12 * 10 + 10 * 9)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: SPELA(nets.mlp([20] * depth), Problem((20,), 4)).double(), x, y)
    assert len(set(found)) == 1, found


def test_a_block_has_learnt_before_the_next_one_is_entered() -> None:
    learnt = learnt_when_entered(rule_on(nets.mlp([6, 8, 7, 5]), 6), *batch(12, 6))
    assert learnt == [[False] * 3, [True, False, False], [True, True, False]]


def test_rows_without_activity_leave_everything_finite() -> None:
    rule = rule_on(nets.mlp([6, 8, 7]), 6)
    with torch.no_grad():
        rule.net[0].affine.bias.fill_(-100.0)
    x, y = batch(12, 6)
    rule.step(x, y)
    assert all(bool(p.isfinite().all()) for p in rule.parameters())
    assert all(bool(predict(x).isfinite().all()) for predict in rule.predictors().values())


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="a regression has none"):
        SPELA(nets.mlp([6, 8]), Problem((6,), 4, "regression"))
    with pytest.raises(UsageError, match="a block with trainable parameters"):
        SPELA(nets.mlp([6, 8]).requires_grad_(False), Problem((6,), 4))
    with pytest.raises(UsageError, match="block 1 has one output"):
        SPELA(nets.mlp([6, 8, 1]), Problem((6,), 4))
    with pytest.raises(UsageError, match="leaves sizes open"):
        SPELA(nets.conv((1, 8, 8), [3]), Problem((1, None, None), 4))
