"""Node perturbation against its formula sample by sample, and against the gradient as the perturbations shrink."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.perturbation import node_perturbation
from altprop.rules.perturbation.node_perturbation import NodePerturbation
from perturbation_nets import (
    CLASSES,
    NETS,
    Make,
    add_share,
    batch,
    close,
    layer_inputs,
    problem,
    pushed,
    sample_loss,
    targets,
    true_gradient,
)
from steps import Opaque, gradients

STILL = partial(torch.optim.SGD, lr=0.0)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every draw of directions, (directions, batch, ...), layer by layer."""
    drawn: list[Tensor] = []
    draw = node_perturbation.signs
    monkeypatch.setattr(node_perturbation, "signs", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    return drawn


@NETS
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_updates_follow_the_formula_sample_by_sample(
    make: Make, shape: tuple[int, ...], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, sigma, count = make().double(), 0.05, 3
    rule = NodePerturbation(net, problem(shape, kind), sigma=sigma, directions=count, optimizer=STILL)
    x, y = batch(5, *shape)
    y = y if kind == "classification" else targets(5)
    drawn = recorded(monkeypatch)
    found = gradients(rule, x, y)
    given = layer_inputs(net, x)
    directions = dict(zip(given, drawn, strict=True))
    expected: dict[str, Tensor] = {}
    for s in range(5):
        here = sample_loss(net(x[s : s + 1])[0], y[s]).item()
        for k in range(count):
            pushes = {i: sigma * u[k, s : s + 1] for i, u in directions.items()}
            d = (sample_loss(pushed(net, x[s : s + 1], pushes)[0], y[s]).item() - here) / sigma
            for i, u in directions.items():
                add_share(expected, net, i, given[i][s : s + 1], d * u[k, s : s + 1] / (5 * count))
    close(found, expected)


def test_both_ways_follow_the_formula_with_the_mean_of_what_the_layers_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, sigma = nets.mlp([6, 8], classes=CLASSES).double(), 0.05
    rule = NodePerturbation(net, sigma=sigma, directions=2, antithetic=True, optimizer=STILL)
    x, y = batch(5, 6)
    drawn = recorded(monkeypatch)
    found = gradients(rule, x, y)
    u0, u1 = drawn
    (w0, b0), (w1, b1) = [[p.detach() for p in block.parameters()] for block in net]
    total = [torch.zeros_like(p) for p in (w0, b0, w1, b1)]
    for s in range(5):
        hs, ds = [], []
        for k in range(2):
            losses = []
            for sign in (1, -1):
                hs.append((w0 @ x[s] + b0 + sign * sigma * u0[k, s]).clamp_min(0.0))
                losses.append(sample_loss(w1 @ hs[-1] + b1 + sign * sigma * u1[k, s], y[s]))
            ds.append((losses[0] - losses[1]) / (2 * sigma))
        for k in range(2):
            share = ds[k] / (5 * 2)
            total[0] += share * u0[k, s][:, None] * x[s]
            total[1] += share * u0[k, s]
            total[2] += share * u1[k, s][:, None] * sum(hs) / 4
            total[3] += share * u1[k, s]
    close(found, dict(zip((f"net.{name}" for name, _ in net.named_parameters()), total, strict=True)))


@pytest.mark.parametrize(("antithetic", "order"), [(False, 1), (True, 2)])
def test_error_falls_like_sigma_or_its_square(antithetic: bool, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the sum over samples of slope times direction, with the slopes by autograd."""
    net = nets.mlp([6, 8, 7], classes=CLASSES, act="tanh").double()
    x, y = batch(5, 6)
    given = layer_inputs(net, x)
    errors = []
    for sigma in (1e-2, 5e-3):
        rule = NodePerturbation(net, sigma=sigma, antithetic=antithetic, optimizer=STILL)
        with monkeypatch.context() as patch:
            drawn = recorded(patch)
            found = gradients(rule, x, y)["net.0.affine.weight"]
        directions = dict(zip(given, drawn, strict=True))
        expected = torch.zeros_like(found)
        for s in range(5):
            pushes = {i: torch.zeros(1, u.size(2), dtype=torch.float64).requires_grad_() for i, u in directions.items()}
            loss = sample_loss(pushed(net, x[s : s + 1], pushes)[0], y[s])
            slopes = torch.autograd.grad(loss, list(pushes.values()))
            d = sum(float((g * u[0, s]).sum()) for g, u in zip(slopes, directions.values(), strict=True))
            expected += d * directions[0][0, s][:, None] * x[s] / 5
        errors.append(float((found - expected).norm()))
    assert errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.1)


def test_sum_over_a_basis_is_the_gradient_where_the_loss_is_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear net and a squared error, tried both ways: exact slopes, and exact inputs, at any sigma."""
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, CLASSES)).double()
    x, y = batch(5, 3)[0], targets(5)
    rule = NodePerturbation(net, problem((3,), "regression"), sigma=0.3, antithetic=True, optimizer=STILL)
    total: dict[str, Tensor] = {}
    for k in range(9):
        hot = torch.eye(9, dtype=torch.float64)[k]
        parts = iter((hot[:5], hot[5:]))
        monkeypatch.setattr(node_perturbation, "signs", lambda size, *_, p=parts: next(p).expand(size).clone())
        for name, g in gradients(rule, x, y).items():
            total[name] = total.get(name, 0) + g
    close(total, true_gradient(net, x, y))


class Quantised(nn.Linear):
    """A linear layer that rounds its weights and its output."""

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = Opaque()(nn.functional.linear(x, (self.weight * 64).round() / 64, self.bias))
        return rounded


def test_a_black_box_learns() -> None:
    first = Quantised(6, 16)
    with torch.no_grad():
        first.weight.copy_(torch.randn(16, 6, generator=torch.Generator().manual_seed(1)) / 6**0.5)
    net = nn.Sequential(nets.Block(first, activation=nn.ReLU()), Opaque(), *nets.mlp([16], classes=4))
    rule = NodePerturbation(net, Problem((6,), 4), sigma=0.3, directions=4, optimizer=partial(torch.optim.SGD, lr=0.1))
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :4].argmax(1)
    before, weight = float(rule.step(x, y)["loss"]), first.weight.detach().clone()
    for _ in range(200):
        last = rule.step(x, y)["loss"]
    assert float(last) < 0.6 * before
    assert not torch.equal(first.weight, weight)


@pytest.mark.parametrize(("antithetic", "tried"), [(False, 1 + 3), (True, 2 * 3)])
def test_operations_equal_a_hand_count_and_no_product_is_wasted(antithetic: bool, tried: int) -> None:
    b, n0, n1, c = 16, 12, 10, 4
    rule = NodePerturbation(nets.mlp([n0, n1], classes=c), directions=3, antithetic=antithetic)
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    slopes_times_directions = 3 * b * (n1 + c)  # a product over the directions, for each sample
    forward, updates = b * (n0 * n1 + tried * n1 * c), b * (n0 * n1 + n1 * c)  # the first layer's input is the same
    assert trace.operations == 2 * (forward + updates + slopes_times_directions)


def test_frozen_parameters_stay() -> None:
    net = nets.mlp([6, 8, 7], classes=CLASSES).double()
    net[1].requires_grad_(False)
    net[2].affine.bias.requires_grad_(False)
    rule = NodePerturbation(net, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    rule.step(*batch(12, 6))
    still = {name for name, p in net.named_parameters() if torch.equal(p, before[name])}
    assert still == {"1.affine.weight", "1.affine.bias", "2.affine.bias"}


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="build the net with classes=4"):
        NodePerturbation(nets.mlp([6, 8]), problem((6,)))
    with pytest.raises(UsageError, match="block 0 has trainable parameters outside"):
        NodePerturbation(nn.Sequential(nn.LayerNorm(6), *nets.mlp([6], classes=4)), problem((6,)))
    with pytest.raises(UsageError, match=r"sigma=-1\.0, directions=1"):
        NodePerturbation(nets.mlp([6, 8], classes=4), sigma=-1.0)
