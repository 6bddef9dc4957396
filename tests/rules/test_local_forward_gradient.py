"""Local forward gradients against sums over all directions, the gradients of the local losses, and formulas by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.perturbation import local_forward_gradient
from altprop.rules.perturbation.local_forward_gradient import LocalForwardGradient
from perturbation_nets import CLASSES, Make, add_share, batch, close, problem, pushed, sample_loss, targets
from steps import gradients, learnt_when_entered, peaks

STILL = partial(torch.optim.SGD, lr=0.0)

NETS = pytest.mark.parametrize(
    ("make", "shape", "groups"),
    [
        (lambda: nets.mlp([6, 8, 7]), (6,), 1),
        (lambda: nets.mlp([6, 8, 4]), (6,), 4),
        (lambda: nets.mlp([6, 8, 7], act="tanh", norm=True), (6,), 1),
        (lambda: nets.conv((2, 8, 8), [2, 4]), (2, 8, 8), 2),
        (lambda: nets.local((2, 8, 8), [(2, 4, 2), (4, 2, 1)], init="kaiming"), (2, 8, 8), 2),
        (lambda: nets.rates([6, 5, 4], steps=3, act="tanh"), (6,), 1),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 6), nn.Linear(6, 3), nn.Tanh()), (2, 3, 3), 3),
    ],
    ids=["relu", "four groups", "layer norm", "conv with pooling", "local fields", "in time", "bare layers"],
)


def rule_on(make: Make, shape: tuple[int, ...], groups: int, kind: str = "classification") -> LocalForwardGradient:
    return LocalForwardGradient(make().double(), problem(shape, kind), groups=groups, optimizer=STILL).double()


def local_gradients(rule: LocalForwardGradient, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of the sum of the local losses, by autograd, cut between the blocks."""
    total = torch.zeros((), dtype=x.dtype)
    for i, block in enumerate(rule.net):
        x = block(x.detach())
        if str(i) in rule.heads:
            scores = x.flatten(1) @ rule.heads[str(i)].weight.T
            total = total + sum(sample_loss(s, t) for s, t in zip(scores, y, strict=True)) / len(y)
    names = {name: p for name, p in rule.named_parameters()}
    return dict(zip(names, torch.autograd.grad(total, list(names.values())), strict=True))


@NETS
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_sum_over_a_basis_is_the_gradient_of_each_blocks_own_loss(
    make: Make, shape: tuple[int, ...], groups: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = rule_on(make, shape, groups, kind)
    x, y = batch(5, *shape)
    y = y if kind == "classification" else targets(5)
    expected = local_gradients(rule, x, y)
    sizes: list[int] = []
    place = 0

    def one_hot(_: nn.Module, a: Tensor, __: torch.Generator) -> Tensor:
        sizes.append(a[0].numel())
        u = torch.zeros_like(a).flatten(1)
        u[:, place : place + 1] = 1.0
        return u.view(a.shape)

    monkeypatch.setattr(local_forward_gradient, "directions", one_hot)
    total: dict[str, Tensor] = {}
    while place < max([*sizes, 1]):
        for name, g in gradients(rule, x, y).items():
            total[name] = g if name.startswith("heads") else total.get(name, 0) + g
        place += 1
    assert place > 5
    close(total, expected)


@NETS
def test_blocks_follow_the_formula_sample_by_sample_and_group_by_group(
    make: Make, shape: tuple[int, ...], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = rule_on(make, shape, groups)
    x, y = batch(5, *shape)
    drawn: list[Tensor] = []
    draw = local_forward_gradient.directions
    monkeypatch.setattr(local_forward_gradient, "directions", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    found = gradients(rule, x, y)
    expected: dict[str, Tensor] = {}
    h = x
    for i, block in enumerate(rule.net):
        if str(i) in rule.heads:
            u = drawn.pop(0)
            for s in range(5):
                push = torch.zeros_like(u[s : s + 1]).requires_grad_()
                out = pushed(nn.Sequential(block), h[s : s + 1], {0: push})
                scores = out.flatten() @ rule.heads[str(i)].weight.T
                (slopes,) = torch.autograd.grad(sample_loss(scores, y[s]), push)
                parts = []
                for g in range(groups):
                    own = slice(g * u[s].numel() // groups, (g + 1) * u[s].numel() // groups)
                    d = float((slopes.flatten()[own] * u[s].flatten()[own]).sum())
                    parts.append(d * u[s].flatten()[own] / 5)
                add_share(expected, rule.net, i, h[s : s + 1], torch.cat(parts).view(push.shape))
        h = block(h).detach()
    close({name: g for name, g in found.items() if name.startswith("net")}, expected)


def test_a_group_for_each_unit_leaves_no_noise_at_all() -> None:
    rule = rule_on(lambda: nets.mlp([6, 8, 8]), (6,), 8)
    x, y = batch(5, 6)
    close(gradients(rule, x, y), local_gradients(rule, x, y))


def test_the_more_groups_the_less_noise() -> None:
    x, y = batch(5, 6)
    errors = []
    for groups in (1, 4, 16):
        rule = rule_on(lambda: nets.mlp([6, 32], act="tanh"), (6,), groups)
        true = local_gradients(rule, x, y)["net.0.affine.weight"]
        errors.append(sum(float((gradients(rule, x, y)["net.0.affine.weight"] - true).norm()) for _ in range(20)))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2] > 0


def test_metrics_and_predictors() -> None:
    rule = rule_on(lambda: nets.mlp([6, 8, 7]), (6,), 1).eval()
    x, y = batch(5, 6)
    metrics = rule.step(x, y)
    h, scores = x, []
    for i, block in enumerate(rule.net):
        h = block(h)
        scores.append(h @ rule.heads[str(i)].weight.T)
    losses = [sum(sample_loss(s, t) for s, t in zip(each, y, strict=True)) / 5 for each in scores]
    torch.testing.assert_close([metrics["local"], metrics["loss"]], [loss.detach() for loss in losses])
    found = {name: predict(x) for name, predict in rule.predictors().items()}
    assert found.keys() == {"last", "mean"}
    torch.testing.assert_close(found["last"], scores[1])
    torch.testing.assert_close(found["mean"], (scores[0] + scores[1]) / 2)


@pytest.mark.parametrize("groups", [1, 5])
def test_operations_equal_a_hand_count_and_no_product_is_wasted(groups: int) -> None:
    b, c, widths = 16, 4, [12, 10, 15]
    rule = LocalForwardGradient(nets.mlp(widths), Problem((12,), c), groups=groups)
    x, y = torch.rand(b, 12, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    blocks = 2 * b * (12 * 10 + 10 * 15)  # forward and update
    heads = 3 * b * c * (10 + 15)  # forward, update and the tangent's way through
    assert trace.operations == 2 * (blocks + heads)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: LocalForwardGradient(nets.mlp([20] * depth), Problem((20,), 4)).double(), x, y)
    assert len(set(found)) == 1, found


def test_a_block_has_learnt_before_the_next_one_is_entered() -> None:
    rule = LocalForwardGradient(nets.mlp([6, 8, 7, 5]), Problem((6,), 4)).double()
    assert learnt_when_entered(rule, *batch(12, 6)) == [[False] * 3, [True, False, False], [True, True, False]]


def test_frozen_blocks_stay_while_their_heads_learn() -> None:
    net = nets.mlp([6, 8, 7])
    net[0].requires_grad_(False)
    rule = LocalForwardGradient(net, Problem((6,), 4), groups=7).double()
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    rule.step(*batch(12, 6))
    same = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert same == {"net.0.affine.weight", "net.0.affine.bias"}


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="build the net without classes"):
        LocalForwardGradient(nets.mlp([6, 8], classes=CLASSES), problem((6,)))
    with pytest.raises(UsageError, match="a block with parameters"):
        LocalForwardGradient(nn.Sequential(nn.Flatten()), problem((6,)))
    with pytest.raises(UsageError, match="groups=3: the 8 units of block 0"):
        LocalForwardGradient(nets.mlp([6, 8]), problem((6,)), groups=3)
    with pytest.raises(UsageError, match="groups=0"):
        LocalForwardGradient(nets.mlp([6, 8]), problem((6,)), groups=0)
    with pytest.raises(UsageError, match="normalisation of block 0 mixes"):
        LocalForwardGradient(nets.mlp([6, 8], norm=True), problem((6,)), groups=2)


def test_groups_are_of_units_and_not_of_time() -> None:
    with pytest.raises(UsageError, match=r"block 0 gives \(4, 8\), with a time axis"):
        LocalForwardGradient(nets.rates([6, 8, 8], steps=4), problem((6,)), groups=2)
