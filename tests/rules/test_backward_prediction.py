"""Backward prediction against its update sample by sample, and what its backward layers come to."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.backward_prediction import BackwardPrediction
from steps import gradients

SGD = partial(torch.optim.SGD, lr=0.1)


def rule_on(net: nn.Sequential, **options: object) -> BackwardPrediction:
    return BackwardPrediction(net.double(), **{"optimizer": SGD, "substeps": 1, **options})


def batch(count: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=g, dtype=torch.float64), torch.randint(4, (count,), generator=g)


@torch.no_grad()
def naive(rule: BackwardPrediction, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], float]:
    """One sub-step, one sample after another, slopes by autograd of the activation; and the unexplained share."""
    drawn = torch.Generator()
    drawn.set_state(rule.generator.get_state())
    last = len(rule.net) - 1
    noise = {
        i: torch.randn(len(x), rule.net[i].affine.in_features, generator=drawn).double() for i in range(last, 0, -1)
    }
    found = {name: torch.zeros_like(p) for name, p in rule.named_parameters()}
    wrongs, sizes = dict.fromkeys(noise, 0.0), dict.fromkeys(noise, 0.0)
    for k in range(len(x)):
        h = [x[k]]
        for block in rule.net:
            h.append(block(h[-1]))
        e = h[-1].softmax(0) - torch.eye(4, dtype=torch.float64)[y[k]]
        for i in range(last, -1, -1):
            z = rule.net[i].affine(h[i]).requires_grad_()
            f = rule.net[i].activation
            with torch.enable_grad():
                (slope,) = torch.autograd.grad((z if f is None else f(z)).sum(), z)
            delta = slope * e
            found[f"net.{i}.affine.weight"] += torch.outer(delta, h[i]) / len(x)
            found[f"net.{i}.affine.bias"] += delta / len(x)
            if i > 0:
                b, n = rule.backward_layers[i - 1].weight, noise[i][k]
                e = b @ delta
                change = (rule.net[i](h[i] + rule.noise * n) - h[i + 1]) / rule.noise
                wrong = b @ change - n
                found[f"backward_layers.{i - 1}.weight"] += torch.outer(wrong, change) / len(x)
                wrongs[i] += float(wrong.square().sum())
                sizes[i] += float(n.square().sum())
    shares = [wrongs[i] / sizes[i] for i in noise]
    return found, sum(shares) / max(1, len(shares))


@pytest.mark.parametrize(
    "net",
    [
        nets.mlp([6, 8, 7, 5], classes=4, act="tanh"),
        nets.mlp([6, 8, 7], classes=4),
        nets.mlp([6, 8], classes=4, act="sigmoid"),
        nets.mlp([6, 8], classes=4, act="leaky-relu"),
        nets.mlp([6], classes=4),
    ],
    ids=["tanh", "relu", "sigmoid", "leaky", "no hidden block"],
)
def test_updates_equal_loops_over_samples(net: nn.Sequential) -> None:
    rule = rule_on(net, noise=0.3)
    x, y = batch()
    expected, _ = naive(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert bool(value.any())
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-13)


def test_metrics_are_those_before_the_first_substep() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"), substeps=3)
    x, y = batch()
    _, share = naive(rule, x, y)
    loss = nn.functional.cross_entropy(rule.net(x), y).detach()
    metrics = rule.step(x, y)
    torch.testing.assert_close(metrics["loss"], loss, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(float(metrics["unexplained"]), share, rtol=1e-12, atol=0.0)


def test_substeps_are_steps_on_the_same_batch() -> None:
    one, other = (rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"), substeps=k) for k in (3, 1))
    x, y = batch()
    one.step(x, y)
    for _ in range(3):
        other.step(x, y)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_with_the_transpose_for_its_backward_layers_it_is_backpropagation() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4, act="tanh"))
    for i, layer in enumerate(rule.backward_layers, 1):
        rule.assign(layer.weight, rule.net[i].affine.weight.T)
    x, y = batch()
    nn.functional.cross_entropy(rule.net(x), y).backward()
    expected = {name: p.grad.clone() for name, p in rule.named_parameters() if p.grad is not None}
    rule.zero_grad(set_to_none=True)
    found = gradients(rule, x, y)
    assert len(expected) == 6
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)


def test_backward_layers_become_the_regression_of_noise_on_change() -> None:
    """For a linear block y = W x with unit noise the best B is W^T (W W^T)^-1."""
    net = nn.Sequential(nets.Block(nn.Linear(6, 9)), nets.Block(nn.Linear(9, 4)))
    rule = rule_on(net, optimizer={"blocks": partial(torch.optim.SGD, lr=0.0), "backward": SGD})
    w = net[1].affine.weight.detach()
    nn.init.orthogonal_(w)
    x, y = batch(200)
    for _ in range(300):
        rule.step(x, y)
    b = rule.backward_layers[0].weight.detach()
    best = w.T @ torch.linalg.inv(w @ w.T)
    assert float((b - best).norm() / best.norm()) < 0.05


def test_at_a_rate_of_zero_backward_layers_stay_random_and_blocks_learn() -> None:
    rule = rule_on(nets.mlp([6, 8], classes=4), optimizer={"blocks": SGD, "backward": partial(torch.optim.SGD, lr=0.0)})
    before = {name: p.clone() for name, p in rule.named_parameters()}
    rule.step(*batch())
    still = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert still == {"backward_layers.0.weight"}


def test_regression_and_frozen_blocks() -> None:
    net = nets.mlp([6, 8], classes=2, act="tanh")
    net[0].requires_grad_(False)
    rule = rule_on(net, problem=Problem((6,), 2, "regression"))
    before = {name: p.clone() for name, p in rule.named_parameters()}
    x, _ = batch()
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    loss = 0.5 * (net(x) - y).square().sum(1).mean()
    torch.testing.assert_close(rule.step(x, y)["loss"], loss.detach(), rtol=1e-12, atol=0.0)
    still = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert still == {"net.0.affine.weight", "net.0.affine.bias"}


@pytest.mark.parametrize("option", [{"substeps": 0}, {"noise": 0.0}, {"noise": float("inf")}])
def test_bad_arguments_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one sub-step"):
        BackwardPrediction(nets.mlp([6, 8], classes=4), **option)


def test_other_nets_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match="without norm"):
        BackwardPrediction(nets.mlp([6, 8], classes=4, norm=True))
