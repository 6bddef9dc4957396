"""Bidirectional predictive coding against autograd of the whole energy, and what drawing and completing promise."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.bidirectional_predictive_coding import BidirectionalPredictiveCoding
from steps import gradients

SGD = partial(torch.optim.SGD, lr=0.1)


def rule_on(net: nn.Sequential, **options: object) -> BidirectionalPredictiveCoding:
    return BidirectionalPredictiveCoding(
        net.double(), **{"optimizer": SGD, "alpha_down": 0.3, "sweeps": 8, "rate": 0.1, **options}
    )


def batch(count: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=g, dtype=torch.float64), torch.randint(4, (count,), generator=g)


def whole_energy(rule: BidirectionalPredictiveCoding, states: list[Tensor]) -> Tensor:
    """The sum over the batch, written as in the paper."""
    total = torch.zeros((), dtype=torch.float64)
    for i, (block, mirror) in enumerate(zip(rule.net, rule.down, strict=True)):
        total = total + rule.alpha_up / 2 * (states[i + 1] - block(states[i])).square().sum()
        total = total + rule.alpha_down / 2 * (states[i] - mirror(states[i + 1])).square().sum()
    return total


def descended(
    rule: BidirectionalPredictiveCoding, states: list[Tensor], free: list[int], sweeps: int, mask: Tensor | float = 1.0
) -> list[Tensor]:
    """The states after sweeps of gradient descent by autograd of the whole energy; the mask is the input's."""
    states = [h.detach().clone().requires_grad_() for h in states]
    for _ in range(sweeps):
        slopes = torch.autograd.grad(whole_energy(rule, states), states)
        for i in free:
            slope = slopes[i] * mask if i == 0 else slopes[i]
            states[i] = (states[i] - rule.rate * slope).detach().requires_grad_()
    return states


def forward_states(rule: BidirectionalPredictiveCoding, x: Tensor) -> list[Tensor]:
    states = [x]
    for block in rule.net:
        states.append(block(states[-1]))
    return states


NETS = pytest.mark.parametrize(
    "net",
    [
        lambda: nets.mlp([6, 8, 7, 5], classes=4, act="tanh"),
        lambda: nets.mlp([6, 8, 7], classes=4, act="leaky-relu"),
        lambda: nets.mlp([6, 8, 7], classes=4),
        lambda: nets.mlp([6, 8], classes=4, act="sigmoid", bias=False),
        lambda: nets.mlp([6], classes=4),
    ],
    ids=["tanh", "leaky", "relu", "no bias", "no hidden block"],
)


@NETS
def test_states_and_gradients_equal_autograd_of_the_whole_energy(net: object) -> None:
    assert callable(net)
    rule = rule_on(net())
    x, y = batch()
    target = nn.functional.one_hot(y, 4).double()
    states = [*forward_states(rule, x)[:-1], target]
    states = [h.detach() for h in descended(rule, states, list(range(1, len(rule.net))), rule.sweeps)]
    (whole_energy(rule, states) / len(x)).backward()
    expected = {name: p.grad.clone() for name, p in rule.named_parameters() if p.grad is not None}
    rule.zero_grad(set_to_none=True)
    found = gradients(rule, x, y)
    assert set(found) == set(expected) == {name for name, _ in rule.named_parameters()}
    for name, value in found.items():
        assert bool(value.any())
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-13)


def test_metrics_are_the_loss_before_the_energy_after_and_the_last_slope() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"), sweeps=3)
    x, y = batch()
    target = nn.functional.one_hot(y, 4).double()
    start = [*forward_states(rule, x)[:-1], target]
    loss = 0.5 * (rule.net(x) - target).square().sum() / len(x)
    before, after = (descended(rule, start, [1, 2], sweeps) for sweeps in (2, 3))
    slopes = torch.autograd.grad(whole_energy(rule, before), before[1:3])
    expected = {
        "loss": loss,
        "energy": whole_energy(rule, after) / len(x),
        "residual": sum(slope.square().sum(1) for slope in slopes).sqrt().mean(),
    }
    found = rule.step(x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=1e-12, atol=0.0)


def test_energy_never_rises_below_the_stable_rate_and_the_residual_vanishes() -> None:
    rule = rule_on(nets.mlp([6, 8, 7, 5], classes=4, act="tanh", init="lecun"), rate=0.2, alpha_down=1.0)
    x, y = batch(20)
    target = nn.functional.one_hot(y, 4).double()
    free = {i: 1.0 for i in range(1, len(rule.net))}
    with torch.no_grad():
        now, energies = rule.upward(x, target), []
        for _ in range(600):
            energies.append(rule.energy(now))
            now, residual = rule.relax(now, free, 1)
    steps = torch.stack(energies).diff(dim=0)
    assert bool((steps <= 1e-12).all()) and bool((steps[:50] < 0).all())
    assert float(residual.max()) < 1e-8


def test_a_sample_relaxes_alone() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"))
    x, y = batch()
    together = gradients(rule, x, y)
    alone = [
        gradients(rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh")), x[i : i + 1], y[i : i + 1])
        for i in range(len(x))
    ]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([g[name] for g in alone]).mean(0), rtol=1e-10, atol=1e-13)


def test_drawing_goes_down_and_then_relaxes_all_but_the_label() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"))
    top = torch.eye(4, dtype=torch.float64)
    states = [top]
    for block in (rule.down[2], rule.down[1], rule.down[0]):
        states.insert(0, block(states[0]))
    torch.testing.assert_close(rule.draw(torch.arange(4)), states[0].detach(), rtol=1e-12, atol=1e-14)
    expected = descended(rule, states, [0, 1, 2], 5)[0].detach()
    torch.testing.assert_close(rule.draw(torch.arange(4), sweeps=5), expected, rtol=1e-10, atol=1e-13)


def test_completing_keeps_what_is_known_and_relaxes_the_rest() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"))
    x, _ = batch()
    known = torch.tensor([True, True, False, True, False, False])
    start = forward_states(rule, x * known)
    expected = descended(rule, start, [0, 1, 2, 3], 7, mask=(~known).double())[0].detach()
    found = rule.complete(x, known, sweeps=7)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    assert torch.equal(found[:, known], x[:, known]) and bool((found[:, ~known] != 0).all())
    assert torch.equal(rule.complete(x + 5.0 * ~known, known, sweeps=7), found)  # what is covered is not seen


def test_drawing_says_when_it_diverges() -> None:
    rule = BidirectionalPredictiveCoding(nets.mlp([6, 9, 8], classes=3))
    rule.rate = 1e3
    x, known = torch.rand(4, 6), torch.tensor([True, False] * 3)
    for drawn in (lambda: rule.complete(x, known), lambda: rule.draw(torch.tensor([0, 2]), sweeps=200)):
        with pytest.raises(UsageError, match=r"without bound.*lower its attribute rate"):
            drawn()


def test_a_state_that_is_clamped_is_predicted_from_once() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4), sweeps=4)
    calls: list[str] = []
    for name, blocks in (("up", rule.net), ("down", rule.down)):
        for i, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, place=f"{name} {i}": calls.append(place))
    rule.step(*batch())
    counts = {place: calls.count(place) for place in calls}
    assert counts == {"up 0": 1, "up 1": 5, "up 2": 5, "down 0": 5, "down 1": 5, "down 2": 1}


def test_frozen_blocks_stay_and_the_others_learn() -> None:
    net = nets.mlp([6, 8, 7], classes=4)
    net[0].requires_grad_(False)
    rule = rule_on(net)
    before = {name: p.clone() for name, p in rule.named_parameters()}
    rule.step(*batch())
    still = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert still == {"net.0.affine.weight", "net.0.affine.bias"}


def test_regression_takes_its_targets_as_they_are() -> None:
    net = nets.mlp([6, 8], classes=2, act="tanh")
    rule = rule_on(net, problem=Problem((6,), 2, "regression"))
    x, _ = batch()
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    expected = 0.5 * (net(x) - y).square().sum(1).mean()
    torch.testing.assert_close(rule.step(x, y)["loss"], expected.detach(), rtol=1e-12, atol=0.0)
    for _ in range(300):
        loss = rule.step(x, y)["loss"]
    assert loss < 0.2 * expected


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nets.mlp([6, 8], classes=4, act="gelu"), "build the net with altprop.nets.mlp"),
        (nets.mlp([6, 8], classes=4, norm=True), "without norm"),
        (nets.conv((1, 6, 6), [2], classes=4), "block 0 is not a linear layer"),
        (nets.mlp([6, 8]), "output block with 4 outputs"),
    ],
)
def test_other_nets_are_refused_in_words(net: nn.Sequential, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BidirectionalPredictiveCoding(net, Problem((6,), 4))


@pytest.mark.parametrize("option", [{"sweeps": 0}, {"rate": 0.0}, {"alpha_up": -1.0}, {"alpha_down": float("nan")}])
def test_bad_arguments_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="give at least one sweep"):
        BidirectionalPredictiveCoding(nets.mlp([6, 8], classes=4), **option)
