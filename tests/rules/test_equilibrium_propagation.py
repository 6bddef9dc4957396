"""Equilibrium propagation against the gradient of settled outputs, by autograd through every sweep."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.equilibrium_propagation import EquilibriumPropagation
from settled_nets import EXACT, batch, distance, settled_gradients, small_net, sweep, unrolled
from steps import gradients


def error(nudge: str, beta: float, net: nn.Sequential, **options: float) -> float:
    """How far one step's gradients are from those of the settled outputs."""
    x, y = batch(6, 5, 3)
    expected = settled_gradients(net, x, y, options.get("feedback", 0.1))
    rule = EquilibriumPropagation(net, Problem((5,), 3), nudge=nudge, beta=beta, **EXACT, **options)
    return distance(gradients(rule, x, y), expected)


@pytest.mark.parametrize(
    ("act", "output", "feedback"),
    [("tanh", True, 1.0), ("sigmoid", True, 1.0), ("tanh", True, 0.5), ("tanh", False, 1.0), ("sigmoid", False, 0.7)],
)
@pytest.mark.parametrize(("nudge", "order"), [("positive", 1), ("negative", 1), ("centred", 2)])
def test_the_error_falls_as_a_power_of_beta(nudge: str, order: int, act: str, output: bool, feedback: float) -> None:
    betas = (3e-2, 3e-3) if order == 2 else (1e-3, 1e-4)
    far, near = (error(nudge, beta, small_net(5, 8, 7, 3, act=act, output=output), feedback=feedback) for beta in betas)
    assert near < 3e-4
    assert 0.95 * order < math.log10(far / near) < 1.05 * order


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_the_error_of_holomorphic_nudges_falls_geometrically_with_their_number(act: str) -> None:
    errors = [
        error("holomorphic", 0.3, small_net(5, 8, 7, 3, act=act), points=n, feedback=1.0) for n in (2, 4, 8, 16, 32)
    ]
    assert all(late < early for early, late in pairwise(errors))
    # Twice as many points square the error, up to a constant.
    assert errors[4] < 1e-5 and errors[4] < 10 * errors[3] ** 2 / errors[0]


def test_two_holomorphic_points_are_the_centred_nudge() -> None:
    x, y = batch(6, 5, 3)
    two, centred = (
        gradients(EquilibriumPropagation(small_net(5, 8, 3), nudge=nudge, points=2, **EXACT), x, y)
        for nudge in ("holomorphic", "centred")
    )
    assert distance(two, centred) < 1e-10


def test_each_nudged_sweep_is_a_step_of_backpropagation_through_time() -> None:
    """Ernoult et al. 2019 (arXiv 1905.13633): K nudged sweeps give the gradient through the last K free ones."""
    x, y = batch(6, 5, 3)
    net, g = small_net(5, 8, 7, 3), 0.6
    settled = [s.detach() for s in unrolled(net, x, g)]
    for count in (1, 2, 3, 7):
        states = settled
        for _ in range(count):
            states = sweep(net, x, states, g)
        loss = 0.5 * (states[-1] - nn.functional.one_hot(y, 3)).square().sum(1).mean()
        through = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        rule = EquilibriumPropagation(
            net, solver="damped", feedback=g, beta=1e-4, sweeps=500, nudged_sweeps=count, tolerance=0.0
        )
        rule.optimizers = {k: torch.optim.SGD(net[int(k[-1])].parameters(), lr=0.0) for k in rule.optimizers}
        found = gradients(rule, x, y)
        for (name, p), expected in zip(net.named_parameters(), through, strict=True):
            expected = torch.zeros_like(p) if expected is None else expected
            torch.testing.assert_close(found[f"net.{name}"], expected, rtol=1e-6, atol=1e-9)
        assert bool(found["net.0.affine.weight"].abs().max() > 1e-6) == (count > 2)


@pytest.mark.parametrize("nudge", ["positive", "centred"])
def test_a_softmax_readout_outside_of_the_net(nudge: str) -> None:
    x, y = batch(6, 5, 3)
    net = small_net(5, 8, 7, 3)
    rule = EquilibriumPropagation(net, nudge=nudge, beta=1e-4, output="cross-entropy", feedback=1.0, **EXACT)
    top = unrolled(net[:-1], x)[-1]
    scores = net[-1](top)
    torch.testing.assert_close(rule(x), scores, rtol=0.0, atol=1e-12)
    loss = nn.functional.cross_entropy(scores, y)
    expected = torch.autograd.grad(loss, list(net.parameters()))
    names = [f"net.{name}" for name, _ in net.named_parameters()]
    assert distance(gradients(rule, x, y), dict(zip(names, expected, strict=True))) < (
        1e-3 if nudge == "positive" else 1e-6
    )


def small_conv() -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    net = nets.conv((2, 8, 8), [3, 4], classes=3, act="tanh", init="uniform", generator=generator).double()
    for p in net.parameters():
        p.data *= 0.7
    return net


def energy(net: nn.Sequential, x: Tensor, states: list[Tensor], g: float) -> Tensor:
    """E of tanh layers below linear outputs: their G are s atanh(s) + log(1 - s^2) / 2 and s^2 / 2."""
    total = torch.zeros((), dtype=x.dtype)
    for i, (block, s) in enumerate(zip(net, states, strict=True)):
        u = block.affine(x if i == 0 else states[i - 1])
        u = u if block.pool is None else block.pool(u)
        own = s * s / 2 if block.activation is None else s * torch.atanh(s) + torch.log1p(-s * s) / 2
        total = total + g ** (i + 1 - len(states)) * (own.sum() - (s * u).sum())
    return total


@pytest.mark.parametrize("g", [1.0, 0.5])
def test_convolutions_settle_where_the_energy_is_flat_and_learn_from_its_slopes(g: float) -> None:
    x, y = batch(4, 2 * 8 * 8, 3)
    x, net = x.view(4, 2, 8, 8), small_conv()
    rule = EquilibriumPropagation(net, Problem((2, 8, 8), 3), beta=0.05, feedback=g, **EXACT)
    system = rule.system(x)
    free = system.relax(system.feed_forward(), rule.solver).states
    leaves = [s.detach().requires_grad_() for s in free]
    slopes = torch.autograd.grad(energy(net, x, leaves, g), leaves)
    assert max(float(s.abs().max()) for s in slopes) < 1e-11
    target, expected = nn.functional.one_hot(y, 3), [torch.zeros_like(p) for p in net.parameters()]
    nudged = rule._nudged(system, free, target.double()).states
    for b, states in zip((0.05, -0.05), zip(*(s.split(len(x)) for s in nudged), strict=True), strict=True):
        leaves = [s.detach().requires_grad_() for s in states]
        total = energy(net, x, leaves, g) + 0.5 * b * (leaves[-1] - target).square().sum()
        assert max(float(s.abs().max()) for s in torch.autograd.grad(total, leaves)) < 1e-11
        parts = torch.autograd.grad(energy(net, x, list(states), g), list(net.parameters()))
        expected = [e + d / (2 * b * len(x)) for e, d in zip(expected, parts, strict=True)]
    names = [f"net.{name}" for name, _ in net.named_parameters()]
    assert distance(gradients(rule, x, y), dict(zip(names, expected, strict=True))) < 1e-10


def test_what_is_already_right_teaches_nothing() -> None:
    net = small_net(5, 8, 2)
    rule = EquilibriumPropagation(net, Problem((5,), 2, "regression"), **EXACT)
    x, _ = batch(4, 5, 2)
    assert all(float(v.abs().max()) < 1e-12 for v in gradients(rule, x, rule(x)).values())


def test_feedback_so_weak_that_early_changes_are_rounding_errors_gives_finite_updates() -> None:
    rule = EquilibriumPropagation(nets.mlp([5] * 60, classes=3, act="tanh"), feedback=0.01)
    x, y = batch(6, 5, 3)
    rule.step(x.float(), y)
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nets.mlp([5, 8], classes=3), "no bounded activation"),
        (nets.mlp([5, 8], classes=3, act="tanh", norm=True), "has a normalisation"),
        (nn.Sequential(nn.Flatten(), *nets.mlp([5, 8], classes=3, act="tanh")), "block 0 does not begin with"),
        (nets.mlp([5, 8], act="tanh"), "must give 3 outputs"),
        (
            nn.Sequential(nets.Block(nn.Linear(5, 8), activation=nn.Tanh(), pool=nn.Dropout()), nn.Linear(8, 3)),
            "only pooling",
        ),
    ],
)
def test_what_does_not_settle_is_refused(net: nn.Sequential, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        EquilibriumPropagation(net, Problem((5,), 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nudge": "sideways"}, "choose a nudge among"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"beta": 1.0}, "below 1"),
        ({"output": "hinge"}, "choose the output"),
        ({"nudge": "holomorphic", "points": 1}, "two points"),
        ({"nudge": "holomorphic", "output": "cross-entropy"}, "complex states need"),
        ({"feedback": 0.0}, "strength in"),
        ({"solver": "newton"}, "choose one of asynchronous"),
        ({"sweeps": 0}, "at least one sweep"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        EquilibriumPropagation(small_net(5, 8, 3), **options)


def test_a_readout_needs_classes_and_a_hidden_block() -> None:
    for net, problem in ((small_net(5, 3), None), (small_net(5, 8, 3), Problem((5,), 3, "regression"))):
        with pytest.raises(UsageError, match="a softmax readout needs"):
            EquilibriumPropagation(net, problem, output="cross-entropy")
    with pytest.raises(UsageError, match="complex states need"):
        EquilibriumPropagation(small_net(5, 8, 3, act="hard-sigmoid"), nudge="holomorphic")
