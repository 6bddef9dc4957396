"""Forward gradients against sums over all directions, and against derivatives taken sample by sample."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import altprop
from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules.perturbation import forward_gradient
from altprop.rules.perturbation.forward_gradient import ForwardGradient
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
from steps import gradients, peaks

STILL = partial(torch.optim.SGD, lr=0.0)


def sum_over_basis(rule: ForwardGradient, x: Tensor, y: Tensor, start: Callable[[int], bool]) -> dict[str, Tensor]:
    """The rule's gradients added up over the directions that start(0), start(1), ... set, until one says no."""
    total: dict[str, Tensor] = {}
    k = 0
    while start(k):
        for name, g in gradients(rule, x, y).items():
            total[name] = total.get(name, 0) + g
        k += 1
    assert k > 10
    return total


class OneHot:
    """In the place of the random directions: 1 at the k-th value of all that are drawn in one pass, 0 elsewhere."""

    def __init__(self, values: int) -> None:
        self.values = values

    def start(self, k: int) -> bool:
        self.k, self.drawn = k, 0
        return k < self.values

    def __call__(self, count: int) -> Tensor:
        flat = torch.zeros(count, dtype=torch.float64)
        place = self.k - self.drawn % self.values
        if 0 <= place < count:
            flat[place] = 1.0
        self.drawn += count
        return flat


@NETS
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_sum_over_a_basis_of_the_activities_is_the_gradient(
    make: Make, shape: tuple[int, ...], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make().double()
    rule = ForwardGradient(net, problem(shape, kind), optimizer=STILL)
    x, y = batch(5, *shape)
    y = y if kind == "classification" else targets(5)
    given = layer_inputs(net, x)
    hot = OneHot(sum(nets.affine(net[i])(h)[0].numel() for i, h in given.items()))
    monkeypatch.setattr(
        forward_gradient, "directions", lambda _, a, __: torch.zeros_like(a) + hot(a[0].numel()).view(a[0].shape)
    )
    close(sum_over_basis(rule, x, y, hot.start), true_gradient(net, x, y))


@NETS
def test_sum_over_a_basis_of_the_weights_is_the_gradient(
    make: Make, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make().double()
    rule = ForwardGradient(net, problem(shape), perturb="weights", optimizer=STILL)
    x, y = batch(5, *shape)
    hot = OneHot(sum(p.numel() for p in net.parameters()))
    monkeypatch.setattr(
        forward_gradient,
        "weight_signs",
        lambda layer, _: {name: hot(p.numel()).view(p.shape) for name, p in layer.named_parameters()},
    )
    close(sum_over_basis(rule, x, y, hot.start), true_gradient(net, x, y))


@NETS
def test_activities_follow_the_formula_sample_by_sample(
    make: Make, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make().double()
    rule = ForwardGradient(net, problem(shape), optimizer=STILL)
    x, y = batch(5, *shape)
    drawn: list[Tensor] = []
    draw = forward_gradient.directions
    monkeypatch.setattr(forward_gradient, "directions", lambda *a: drawn.append(draw(*a)) or drawn[-1])
    found = gradients(rule, x, y)
    given = layer_inputs(net, x)
    directions = dict(zip(given, drawn, strict=True))
    expected: dict[str, Tensor] = {}
    for s in range(5):
        pushes = {i: torch.zeros_like(u[s : s + 1]).requires_grad_() for i, u in directions.items()}
        loss = sample_loss(pushed(net, x[s : s + 1], pushes)[0], y[s])
        slopes = dict(zip(pushes, torch.autograd.grad(loss, list(pushes.values())), strict=True))
        d = sum(float((slopes[i] * directions[i][s]).sum()) for i in pushes)
        for i, u in directions.items():
            add_share(expected, net, i, given[i][s : s + 1], d * u[s : s + 1] / 5)
    close(found, expected)


@NETS
def test_weights_follow_the_formula(make: Make, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    net = make().double()
    rule = ForwardGradient(net, problem(shape), perturb="weights", optimizer=STILL)
    x, y = batch(5, *shape)
    drawn: list[Tensor] = []
    draw = forward_gradient.weight_signs

    def record(layer: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        v = draw(layer, generator)
        drawn.extend(t.clone() for t in v.values())
        return v

    monkeypatch.setattr(forward_gradient, "weight_signs", record)
    found = gradients(rule, x, y)
    true = true_gradient(net, x, y)
    once, again = drawn[: len(true)], drawn[len(true) :]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    d = sum(float((true[name] * v).sum()) for name, v in zip(true, once, strict=True))
    close(found, {name: d * v for name, v in zip(true, once, strict=True)})


def test_directions_are_signs_for_each_sample_and_spare_relus_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Tensor, Tensor]] = []
    draw = forward_gradient.directions

    def record(block: nn.Module, a: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append((a, draw(block, a, generator)))
        return drawn[-1][1]

    monkeypatch.setattr(forward_gradient, "directions", record)
    for act, spared in (("relu", True), ("tanh", False)):
        drawn.clear()
        rule = ForwardGradient(nets.mlp([6, 300], classes=CLASSES, act=act).double(), optimizer=STILL)
        rule.step(*batch(5, 6))
        (a, u), (_, output) = drawn
        assert torch.equal(u != 0, a > 0 if spared else torch.ones_like(a, dtype=torch.bool))
        assert set(u.unique().tolist()) - {0.0} == {-1.0, 1.0} == set(output.unique().tolist())
        assert not torch.equal(u[0] * u[1], (u[0] * u[1]).abs())  # not the same for every sample
        assert abs(float(u.mean())) < 0.15


def test_the_same_steps_as_backprop_where_there_is_one_weight() -> None:
    """A sign squared is one: with a single direction to go, the forward gradient is the gradient."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    rule = ForwardGradient(net, Problem((1,), 1, "regression"), perturb="weights", optimizer=STILL)
    x, y = torch.tensor([[2.0], [3.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    close(gradients(rule, x, y), {"net.0.weight": ((net[0].weight * x - y) * x).mean().view(1, 1).detach()})


@pytest.mark.parametrize("perturb", ["activities", "weights"])
def test_operations_equal_a_hand_count_and_no_product_is_wasted(perturb: str) -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = ForwardGradient(nets.mlp([n0, n1, n2], classes=c), perturb=perturb)
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    forward = updates = n0 * n1 + n1 * n2 + n2 * c  # with weights: V_l h_{l-1} in the place of the updates' products
    tangents = n1 * n2 + n2 * c
    assert trace.operations == 2 * b * (forward + updates + tangents)


def test_peak_memory_does_not_grow_with_depth_where_weights_are_perturbed() -> None:
    x, y = batch(32, 20)

    def build(depth: int) -> ForwardGradient:
        return ForwardGradient(nets.mlp([20] * depth, classes=CLASSES), perturb="weights").double()

    found = peaks(build, x, y)
    assert len(set(found)) == 1, found
    assert build(4).claims.memory == "flat" and ForwardGradient.claims.memory == "grows"


def test_no_backward_pass_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("backpropagation")

    net = nets.mlp([6, 8], classes=CLASSES).double()
    rules = [ForwardGradient(net, perturb=perturb) for perturb in ("activities", "weights")]
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    for rule in rules:
        before = [p.detach().clone() for p in rule.parameters()]
        rule.step(*batch(5, 6))
        assert not any(torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


@pytest.mark.parametrize("perturb", ["activities", "weights"])
def test_frozen_parameters_stay_and_carry_the_tangents_on(perturb: str) -> None:
    net = nets.mlp([6, 8, 7, 5], classes=CLASSES).double()
    net[1].requires_grad_(False)
    net[2].affine.bias.requires_grad_(False)
    rule = ForwardGradient(net, perturb=perturb, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    rule.step(*batch(12, 6))
    still = {name for name, p in net.named_parameters() if torch.equal(p, before[name])}
    assert still == {"1.affine.weight", "1.affine.bias", "2.affine.bias"}


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="build the net with classes=4"):
        ForwardGradient(nets.mlp([6, 8]), Problem((6,), 4))
    with pytest.raises(UsageError, match='choose "activities" or "weights"'):
        ForwardGradient(nets.mlp([6, 8], classes=4), perturb="units")
    normed = nets.blocks(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4)))
    with pytest.raises(UsageError, match="block 0 has trainable parameters outside"):
        ForwardGradient(normed)
    with pytest.raises(UsageError, match="block 0 must be padded with zeros"):
        ForwardGradient(
            nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), *nets.mlp([2], classes=4)), Problem((1, 4, 4), 4)
        )


@pytest.mark.parametrize("perturb", ["activities", "weights"])
def test_a_layers_own_noise_is_no_part_of_a_tangent(perturb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = nets.NoisyLinear.forward
    monkeypatch.setattr(nets.NoisyLinear, "forward", lambda self, x: calls.append(1) or forward(self, x))
    net = nets.boxed([6, 8, 7], classes=CLASSES, box="noisy", derivative="straight-through")
    rule = ForwardGradient(net, perturb=perturb)
    calls.clear()
    rule.step(torch.rand(5, 6), torch.arange(5) % CLASSES)
    assert len(calls) == len(net)


@pytest.mark.parametrize("rule", [ForwardGradient, NodePerturbation])
def test_batch_statistics_are_refused(rule: type[Rule]) -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False)), nn.Linear(8, CLASSES))
    with pytest.raises(UsageError, match="batch statistics carry what is done to one sample"):
        rule(altprop.blocks(net))


def test_an_activation_without_a_derivative_is_refused() -> None:
    rule = ForwardGradient(nets.mlp([6, 8, 7], classes=CLASSES, act="sign"))
    with pytest.raises(UsageError, match="hands no derivative on"):
        rule.step(torch.rand(5, 6), torch.arange(5) % CLASSES)
