"""DualPropagation against its equations sample by sample, against backprop, and at its fixed point."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.losses import losses
from altprop.rules.targets.dual_propagation import Chain, DualPropagation
from altprop.rules.targets.parts import parts_of
from steps import Opaque, gradients

SGD = partial(torch.optim.SGD, lr=0.1)
FORMS = pytest.mark.parametrize("form", ["lagrangian", "original"])


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> DualPropagation:
    return DualPropagation(net.double(), Problem(shape, 4), optimizer=SGD, **options)


def backprop(rule: DualPropagation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    loss = losses(rule.net(x), y, rule.problem.kind).mean()
    named = dict(rule.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of a parameter's update."""
    assert found.keys() == expected.keys()
    return max(float((found[k] - v).norm() / v.norm()) for k, v in expected.items())


def by_hand(rule: DualPropagation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One sample after another, with vectors and the papers' letters."""
    layers = [block.affine for block in rule.net]
    fs = [block.activation or (lambda z: z) for block in rule.net]
    a, beta, last = rule.mixture, rule.beta, len(layers) - 1
    p, m = (1 - a, a) if rule.form == "lagrangian" else (a, 1 - a)
    found = {name: torch.zeros_like(v) for name, v in rule.named_parameters()}
    for sample, label in zip(x, y, strict=True):
        mean = [sample]
        for layer, f in zip(layers, fs, strict=True):
            mean.append(f(layer.weight @ mean[-1] + layer.bias))
        e = mean[-1].softmax(0) - torch.eye(4, dtype=x.dtype)[label]
        up, low = list(mean), list(mean)

        def pair(k: int, push: Tensor, up: list[Tensor] = up, low: list[Tensor] = low) -> None:
            bar = a * up[k] + (1 - a) * low[k]
            z = layers[k].weight @ bar + layers[k].bias
            up[k + 1], low[k + 1] = fs[k](z + p * push), fs[k](z - m * push)

        for sweep in range(rule.sweeps):
            for k in range(last) if sweep else ():
                pair(k, layers[k + 1].weight.T @ (up[k + 2] - low[k + 2]))
            pair(last, -beta * e)
            for k in reversed(range(last)):
                pair(k, layers[k + 1].weight.T @ (up[k + 2] - low[k + 2]))
        for k in range(last + 1):
            d, bar = up[k + 1] - low[k + 1], a * up[k] + (1 - a) * low[k]
            found[f"net.{k}.affine.weight"] -= torch.outer(d, bar) / beta / len(x)
            found[f"net.{k}.affine.bias"] -= d / beta / len(x)
    return found


@FORMS
@pytest.mark.parametrize("act", ["relu", "tanh"])
@pytest.mark.parametrize(("mixture", "sweeps"), [(0.5, 1), (0.0, 1), (1.0, 1), (0.3, 3)])
def test_updates_equal_the_equations_sample_by_sample(form: str, act: str, mixture: float, sweeps: int) -> None:
    net = nets.mlp([6, 8, 7, 5], classes=4, act=act)
    rule = rule_on(net, 6, form=form, mixture=mixture, sweeps=sweeps, beta=0.3)
    x, y = batch(5, 6)
    with torch.no_grad():
        expected = by_hand(rule, x, y)
    found = gradients(rule, x, y)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert bool(value.any())
        torch.testing.assert_close(value, expected[name], rtol=1e-11, atol=1e-13)


@FORMS
@pytest.mark.parametrize(("mixture", "order"), [(0.5, 2), (0.0, 1), (1.0, 1)])
@pytest.mark.parametrize("kind", ["perceptron", "conv"])
def test_the_error_to_backprop_falls_with_beta(form: str, mixture: float, order: int, kind: str) -> None:
    def error(beta: float) -> float:
        if kind == "perceptron":
            rule = rule_on(nets.mlp([6, 8, 7, 5], classes=4, act="tanh"), 6, form=form, mixture=mixture, beta=beta)
            x, y = batch(5, 6)
        else:
            net = nets.conv((2, 8, 8), [3, 5], classes=4, act="tanh")
            rule = rule_on(net, 2, 8, 8, form=form, mixture=mixture, beta=beta)
            x, y = batch(5, 2, 8, 8)
        expected = backprop(rule, x, y)
        return distance(gradients(rule, x, y), expected)

    large, small = error(1e-3), error(1e-4)
    assert small < 10.0 ** -(2 * order)
    assert 0.8 * 10**order < large / small < 1.25 * 10**order


def test_regression_descends_the_squared_error() -> None:
    net = nets.mlp([6, 8], classes=2, act="tanh").double()
    rule = DualPropagation(net, Problem((6,), 2, "regression"), optimizer=SGD, beta=1e-4)
    x, _ = batch(5, 6)
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    expected = backprop(rule, x, y)
    assert distance(gradients(rule, x, y), expected) < 1e-7


def test_both_forms_are_one_for_equal_shares_and_differ_else() -> None:
    x, y = batch(5, 6)

    def found(form: str, mixture: float) -> Tensor:
        net = nets.mlp([6, 8, 7], classes=4, act="tanh")
        return gradients(rule_on(net, 6, form=form, mixture=mixture), x, y)["net.0.affine.weight"]

    assert torch.equal(found("lagrangian", 0.5), found("original", 0.5))
    assert not torch.allclose(found("lagrangian", 0.0), found("original", 0.0))


@FORMS
def test_sweeps_settle_where_the_equations_hold(form: str) -> None:
    net = nets.mlp([6, 8, 7], classes=4, act="tanh")
    x, y = batch(5, 6)
    residuals = [
        float(rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"), 6, form=form, sweeps=s).step(x, y)["residual"])
        for s in (1, 2, 4, 40)
    ]
    assert residuals[0] > residuals[1] > residuals[2] > 10 * residuals[3] and residuals[3] < 1e-13
    with torch.no_grad():
        chain = Chain([parts_of(block) for block in net.double()], x)
        nudge = 0.1 * (chain.z[-1].softmax(1) - torch.eye(4)[y])
        chain.down(nudge, 0.7, 0.3, 0.3)
        for _ in range(40):
            chain.up(0.7, 0.3, 0.3)
            chain.down(nudge, 0.7, 0.3, 0.3)
        push = chain.difference[1] @ net[1].affine.weight
        z = net[0].affine(x)
        upper, lower = (z + 0.7 * push).tanh(), (z - 0.3 * push).tanh()
        torch.testing.assert_close(chain.difference[0], upper - lower, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(chain.h[1], 0.3 * upper + 0.7 * lower, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(chain.z[1], net[1].affine(chain.h[1]), rtol=1e-12, atol=1e-14)


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    for sweeps in (1, 3):
        rule = DualPropagation(nets.mlp([n0, n1, n2], classes=c), sweeps=sweeps)
        rule.step(x, y)
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        first, later = n0 * n1, n1 * n2 + n2 * c
        assert trace.operations == 2 * b * (2 * (first + later) + later + (sweeps - 1) * 2 * later)


def test_activations_and_blocks_without_derivative_are_no_hindrance() -> None:
    first, second, output = nets.mlp([6, 20, 20], classes=4)
    first.activation = Opaque()
    rule = rule_on(nn.Sequential(nn.Flatten(), first, Opaque(), second, output), 6, beta=2.0)
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"mixture": 1.5}, "between 0 and 1"),
        ({"sweeps": 0}, "sweeps at least 1"),
        ({"form": "dual"}, "choose 'lagrangian' or 'original'"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DualPropagation(nets.mlp([6, 8], classes=4), **options)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nets.mlp([6, 8], classes=4, norm=True), "without norm"),
        (nets.mlp([6, 8]), "output block"),
        (nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 4)), "dropout"),
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), "batch statistics"),
        (nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 4)), "block 1 has trainable parameters"),
        (nets.spiking([6, 8], classes=4), "live in time"),
    ],
)
def test_nets_that_it_cannot_train_are_refused(net: nn.Sequential, words: str) -> None:
    assert words in str(DualPropagation.refuses(net, Problem((6,), 4)))
