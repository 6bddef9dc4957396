"""Cascaded forward against gradients and normal equations written out, and what it promises."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.cascaded_forward import CascadedForward
from steps import peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int, classes: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % classes


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> CascadedForward:
    return CascadedForward(net.double(), Problem(shape, 4), optimizer=SGD, **options)


def features(rule: CascadedForward, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for i, block in enumerate(rule.net):
        x = block(x)
        if any(True for _ in block.parameters()):
            found[str(i)] = x.reshape(len(x), -1)
    return found


NETS = pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nets.mlp([6, 8, 7, 5]), (6,)),
        (lambda: nets.conv((2, 8, 8), [3, 5]), (2, 8, 8)),
        (lambda: nets.local((2, 8, 8), [(3, 4, 2), (5, 2, 1)], init="kaiming"), (2, 8, 8)),
        (lambda: nn.Sequential(nn.Flatten(), *nets.mlp([18, 7]), nn.Dropout(0.0)), (2, 3, 3)),
    ],
    ids=["mlp", "conv with pooling", "local fields", "blocks without weights"],
)


@NETS
def test_predictors_descend_their_own_cross_entropy_and_blocks_stay(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape)
    x, y = batch(12, *shape)
    rule.step(x, y)  # away from zero
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    losses = []
    for i, z in features(rule, x).items():
        head = rule.heads[i]
        delta = (z @ head.weight.t() + head.bias).softmax(1)
        losses.append(-delta[range(len(y)), y].log().mean().detach())
        delta = (delta - torch.eye(4, dtype=x.dtype)[y]) / len(y)
        before[f"heads.{i}.weight"] -= 0.1 * (delta.t() @ z).detach()
        before[f"heads.{i}.bias"] -= 0.1 * delta.sum(0).detach()
    metrics = rule.step(x, y)
    for name, p in rule.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).mean())


@NETS
def test_ridge_equals_the_normal_equations_of_all_samples_at_once(make: object, shape: tuple[int]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape, predictor="ridge", ridge=0.01)
    x, y = batch(60, *shape)
    for rows in torch.arange(60).split(17):
        rule.step(x[rows], y[rows])
    rule.finish()
    expected = torch.zeros(60, 4, dtype=x.dtype)
    for i, z in features(rule, x).items():
        z = torch.cat([z, torch.ones(60, 1, dtype=x.dtype)], dim=1)
        strength = 0.01 * z.square().sum() / z.shape[1]
        square = z.t() @ z + strength * torch.eye(z.shape[1], dtype=x.dtype)
        solution = torch.linalg.inv(square) @ z.t() @ torch.eye(4, dtype=x.dtype)[y]
        torch.testing.assert_close(rule.heads[i].weight, solution[:-1].t(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(rule.heads[i].bias, solution[-1], rtol=1e-8, atol=1e-10)
        expected += z @ solution
    torch.testing.assert_close(rule(x), expected)


def ridge_rule() -> CascadedForward:
    return rule_on(nets.mlp([6, 8, 7]), 6, predictor="ridge")


def test_the_same_samples_again_change_no_ridge_solution() -> None:
    x, y = batch(60, 6)
    rule = ridge_rule()
    found = []
    for _ in range(3):
        rule.step(x, y)
        rule.finish()
        found.append(rule(x))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_finish_never_changes_the_course_of_training() -> None:
    plain, watched = ridge_rule(), ridge_rule()
    watched.finish()  # before the first batch there is nothing to solve
    assert not any(bool(head.weight.any()) for head in watched.heads.values())
    for seed in range(4):
        for rule in (plain, watched):
            rule.step(*batch(20, 6, seed=seed))
        watched.finish()
    plain.finish()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_ridge_goes_on_from_its_training_state() -> None:
    rule, fresh = ridge_rule(), ridge_rule()
    rule.step(*batch(20, 6))
    fresh.load_training_state(rule.training_state())
    for other in (rule, fresh):
        other.step(*batch(20, 6, seed=2))
        other.finish()
    x, _ = batch(20, 6)
    assert torch.equal(rule(x), fresh(x))
    assert rule.claims.training_only and not CascadedForward.claims.training_only


def test_ridge_needs_no_optimizer_and_separates_clusters() -> None:
    rule = CascadedForward(nets.mlp([6, 60]), Problem((6,), 4), predictor="ridge")
    assert not rule.optimizers
    g = torch.Generator().manual_seed(0)
    centres, y = 3 * torch.randn(4, 6, generator=g), torch.randint(4, (400,), generator=g)
    x = centres[y] + torch.randn(400, 6, generator=g)
    for rows in torch.arange(300).split(50):
        rule.step(x[rows], y[rows])
    rule.finish()
    assert float((rule(x[300:]).argmax(1) == y[300:]).double().mean()) > 0.95


def test_operations_equal_hand_counts_and_no_product_is_wasted() -> None:
    b, c = 16, 4
    x, y = torch.rand(b, 12, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    blocks, heads = b * (12 * 10 + 10 * 9), b * c * (10 + 9)
    sums = b * (11 * 11 + 10 * 10) + b * c * (11 + 10)
    counted = {"cross-entropy": 2 * (blocks + 2 * heads), "ridge": 2 * (blocks + heads + sums)}
    for predictor, expected in counted.items():
        rule = CascadedForward(nets.mlp([12, 10, 9]), Problem((12,), c), predictor=predictor)
        rule.step(x, y)
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        assert trace.operations == expected


@pytest.mark.parametrize("predictor", ["cross-entropy", "ridge"])
def test_peak_memory_does_not_grow_with_depth(predictor: str) -> None:
    x, y = batch(32, 20)
    found = peaks(
        lambda depth: CascadedForward(nets.mlp([20] * depth), Problem((20,), 4), predictor=predictor).double(), x, y
    )
    assert len(set(found)) == 1, found


def test_reasons_why_not() -> None:
    problem, net = Problem((6,), 4), nets.mlp([6, 8], classes=4)
    with pytest.raises(UsageError, match="build the net without classes"):
        CascadedForward(net, problem)
    assert all(p.requires_grad for p in net.parameters())
    with pytest.raises(UsageError, match="a regression has none"):
        CascadedForward(nets.mlp([6, 8]), Problem((6,), 4, "regression"))
    with pytest.raises(UsageError, match="a block with parameters"):
        CascadedForward(nn.Sequential(nn.Flatten()), problem)
    with pytest.raises(UsageError, match="ridge above 0"):
        CascadedForward(nets.mlp([6, 8]), problem, predictor="ridge", ridge=0.0)
