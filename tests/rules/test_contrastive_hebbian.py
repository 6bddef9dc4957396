"""Contrastive Hebbian learning against outer products, and against backpropagation where feedback is weak."""

import math

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.contrastive_hebbian import ContrastiveHebbian
from settled_nets import EXACT, batch, distance, small_net, sweep, unrolled
from steps import gradients


@pytest.mark.parametrize(("act", "output", "g"), [("tanh", True, 1.0), ("sigmoid", False, 1.0), ("tanh", True, 0.4)])
def test_updates_are_differences_of_products_of_activities(act: str, output: bool, g: float) -> None:
    x, y = batch(6, 5, 3)
    net = small_net(5, 8, 7, 3, act=act, output=output)
    with torch.no_grad():
        minus = unrolled(net, x, g)
        shown = nn.functional.one_hot(y, 3).double()
        plus = minus
        for _ in range(150):
            plus = [*sweep(net, x, [*plus[:-1], shown], g)[:-1], shown]
    expected = {}
    for i in range(3):
        weight, bias = torch.zeros_like(net[i].affine.weight), torch.zeros_like(net[i].affine.bias)
        for n in range(6):
            for states, sign in ((plus, -1), (minus, 1)):
                below = x[n] if i == 0 else states[i - 1][n]
                weight += sign * torch.outer(states[i][n], below) / 6 / g ** (2 - i)
                bias += sign * states[i][n] / 6 / g ** (2 - i)
        expected |= {f"net.{i}.affine.weight": weight, f"net.{i}.affine.bias": bias}
    found = gradients(ContrastiveHebbian(net, Problem((5,), 3), feedback=g, **EXACT), x, y)
    assert distance(found, expected) < 1e-12


def test_with_weak_feedback_it_is_backpropagation_of_the_squared_error() -> None:
    x, y = batch(6, 5, 3)
    net = small_net(5, 8, 7, 3)
    loss = 0.5 * (net(x) - nn.functional.one_hot(y, 3)).square().sum(1).mean()
    expected = torch.autograd.grad(loss, list(net.parameters()))
    names = [f"net.{name}" for name, _ in net.named_parameters()]
    far, near = (
        distance(
            gradients(ContrastiveHebbian(small_net(5, 8, 7, 3), feedback=g, **EXACT), x, y),
            dict(zip(names, expected, strict=True)),
        )
        for g in (1e-3, 1e-4)
    )
    assert near < 5e-3 and 0.95 < math.log10(far / near) < 1.05


def test_a_convolution_learns_from_all_its_places() -> None:
    x, y = batch(4, 72, 3)
    generator = torch.Generator().manual_seed(0)
    net = nets.conv((2, 6, 6), [3], classes=3, act="tanh", init="uniform", generator=generator).double()
    rule = ContrastiveHebbian(net, Problem((2, 6, 6), 3), feedback=0.3, **EXACT)
    x = x.view(4, 2, 6, 6)
    system = rule.system(x)
    minus = system.relax(system.feed_forward(), rule.solver).states
    with torch.no_grad():
        hidden = torch.tanh(
            net[0].affine(x).flatten(1) + 0.3 * nn.functional.one_hot(y, 3).double() @ net[1].affine.weight
        )
        change = (hidden - minus[0]).view(4, 3, 6, 6) / 0.3
        patches = nn.functional.unfold(x, 3, padding=1)  # (batch, 2 * 9, places)
        expected = -torch.einsum("bcp,bkp->ck", change.flatten(2), patches).view(3, 2, 3, 3) / 4
    found = gradients(rule, x, y)
    torch.testing.assert_close(found["net.0.affine.weight"], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["net.0.affine.bias"], -change.sum((0, 2, 3)) / 4, rtol=1e-10, atol=1e-12)


def test_unbounded_activations_are_refused() -> None:
    with pytest.raises(UsageError, match="no bounded activation"):
        ContrastiveHebbian(nets.mlp([5, 8], classes=3))
