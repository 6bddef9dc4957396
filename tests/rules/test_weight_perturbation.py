"""Weight perturbation against its formula, and against the gradient as the perturbations shrink."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.perturbation import weight_perturbation
from altprop.rules.perturbation.weight_perturbation import WeightPerturbation
from perturbation_nets import CLASSES, NETS, Make, batch, close, problem, sample_loss, targets, true_gradient
from steps import Opaque, gradients, peaks

STILL = partial(torch.optim.SGD, lr=0.0)


def mean_loss(net: nn.Sequential, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(sum(sample_loss(s, t) for s, t in zip(net(x), y, strict=True)) / len(x))


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every direction that is drawn, parameter by parameter."""
    drawn: list[Tensor] = []
    draw = weight_perturbation.weight_signs

    def record(block: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        v = draw(block, generator)
        drawn.extend(t.clone() for t in v.values())
        return v

    monkeypatch.setattr(weight_perturbation, "weight_signs", record)
    return drawn


@NETS
@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_updates_follow_the_formula(
    make: Make, shape: tuple[int, ...], antithetic: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, sigma, count = make().double(), 0.05, 3
    options = {"sigma": sigma, "directions": count, "antithetic": antithetic}
    rule = WeightPerturbation(net, problem(shape, kind), optimizer=STILL, **options)
    x, y = batch(5, *shape)
    y = y if kind == "classification" else targets(5)
    drawn = recorded(monkeypatch)
    found = gradients(rule, x, y)
    metrics = rule.step(x, y)
    names = [name for name, _ in net.named_parameters()]
    sizes = [[name for name, _ in block.named_parameters()] for block in net]
    once, again = drawn[: count * len(names)], drawn[count * len(names) : 2 * count * len(names)]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    directions: list[dict[str, Tensor]] = [{} for _ in range(count)]
    left = iter(once)
    for i, inside in enumerate(sizes):  # block by block, direction by direction
        for v in directions:
            v.update((f"{i}.{name}", next(left)) for name in inside)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    expected = {name: torch.zeros_like(p) for name, p in start.items()}

    def loss_at(v: dict[str, Tensor], by: float) -> float:
        net.load_state_dict({name: p + by * v[name] for name, p in start.items()})
        loss = mean_loss(net, x, y)
        net.load_state_dict(start)
        return loss

    for v in directions:
        if antithetic:
            d = (loss_at(v, sigma) - loss_at(v, -sigma)) / (2 * sigma)
        else:
            d = (loss_at(v, sigma) - mean_loss(net, x, y)) / sigma
        for name in names:
            expected[name] += d * v[name] / count
    close(found, {f"net.{name}": g for name, g in expected.items()})
    if not antithetic:
        assert float(metrics["loss"]) == pytest.approx(mean_loss(net, x, y), rel=1e-12)


@pytest.mark.parametrize(("antithetic", "order"), [(False, 1), (True, 2)])
def test_error_falls_like_sigma_or_its_square(antithetic: bool, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.mlp([6, 8, 7], classes=CLASSES, act="tanh").double()
    x, y = batch(5, 6)
    true = true_gradient(net, x, y)
    drawn = recorded(monkeypatch)
    errors = []
    for sigma in (1e-2, 5e-3):
        drawn.clear()
        rule = WeightPerturbation(net, sigma=sigma, antithetic=antithetic, optimizer=STILL)
        found = gradients(rule, x, y)
        v = dict(zip(true, drawn[: len(true)], strict=True))
        slope = sum(float((true[name] * v[name]).sum()) for name in true)
        errors.append(abs(float(found["net.0.affine.bias"][0] * v["net.0.affine.bias"][0]) - slope))
    assert errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.1)


def test_sum_over_a_basis_is_the_gradient_where_the_loss_is_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried both ways it has its exact slopes, at any sigma."""
    net = nn.Sequential(nn.Linear(3, CLASSES)).double()
    rule = WeightPerturbation(net, problem((3,), "regression"), sigma=0.3, antithetic=True, optimizer=STILL)
    x, y = batch(5, 3)[0], targets(5)
    total: dict[str, Tensor] = {}
    for k in range(16):
        hot = torch.eye(16, dtype=torch.float64)[k]
        v = {"weight": hot[:12].view(4, 3), "bias": hot[12:]}
        monkeypatch.setattr(weight_perturbation, "weight_signs", lambda *_, v=v: copy.deepcopy(v))
        for name, g in gradients(rule, x, y).items():
            total[name] = total.get(name, 0) + g
    close(total, true_gradient(net, x, y))


class Lookup(nn.Module):
    """A black box with parameters but no affine layer: it rounds them, and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.linspace(-1, 1, 24).view(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = Opaque()(x) @ (self.table * 64).round() / 64
        return rounded


def test_a_black_box_learns() -> None:
    net = nn.Sequential(Lookup())
    rule = WeightPerturbation(
        net, Problem((6,), 4), sigma=0.05, directions=4, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :4].argmax(1)
    before = mean_loss(net, x, y)
    for _ in range(200):
        rule.step(x, y)
    assert mean_loss(net, x, y) < 0.6 * before


def test_operations_are_those_of_the_predictions_alone() -> None:
    b, n0, n1, c = 16, 12, 10, 4
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    for antithetic, predictions in ((False, 1 + 3), (True, 2 * 3)):
        rule = WeightPerturbation(nets.mlp([n0, n1], classes=c), directions=3, antithetic=antithetic)
        rule.step(x, y)
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        assert trace.operations == predictions * 2 * b * (n0 * n1 + n1 * c)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)

    def build(depth: int) -> WeightPerturbation:
        return WeightPerturbation(nets.mlp([20] * depth, classes=CLASSES), directions=2).double()

    found = peaks(build, x, y)
    assert len(set(found)) == 1, found


def test_frozen_parameters_stay() -> None:
    net = nets.mlp([6, 8, 7], classes=CLASSES).double()
    net[1].requires_grad_(False)
    net[2].affine.bias.requires_grad_(False)
    rule = WeightPerturbation(net, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    rule.step(*batch(12, 6))
    still = {name for name, p in net.named_parameters() if torch.equal(p, before[name])}
    assert still == {"1.affine.weight", "1.affine.bias", "2.affine.bias"}


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="build the net with classes=4"):
        WeightPerturbation(nets.mlp([6, 8]), problem((6,)))
    with pytest.raises(UsageError, match=r"sigma=0\.0, directions=1"):
        WeightPerturbation(nets.mlp([6, 8], classes=4), sigma=0.0)
    with pytest.raises(UsageError, match=r"sigma=0\.1, directions=0"):
        WeightPerturbation(nets.mlp([6, 8], classes=4), sigma=0.1, directions=0)
