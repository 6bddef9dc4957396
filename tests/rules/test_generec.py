"""GeneRec against contrastive Hebbian learning, plain loops, and the error that Almeida and Pineda let settle."""

import math

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.contrastive_hebbian import ContrastiveHebbian
from altprop.rules.energy.generec import GeneRec
from settled_nets import EXACT, batch, distance, small_net, unrolled
from steps import gradients


@pytest.mark.parametrize(("act", "output", "g"), [("tanh", True, 1.0), ("sigmoid", False, 0.5)])
def test_the_symmetrised_midpoint_is_contrastive_hebbian_learning(act: str, output: bool, g: float) -> None:
    x, y = batch(6, 5, 3)
    problem = Problem((5,), 3)
    rules = (
        GeneRec(small_net(5, 8, 7, 3, act=act, output=output), problem, kind="symmetrised", feedback=g, **EXACT),
        ContrastiveHebbian(small_net(5, 8, 7, 3, act=act, output=output), problem, feedback=g, **EXACT),
    )
    one, other = (gradients(rule, x, y) for rule in rules)
    assert distance(one, other) < 1e-12


def settled_errors(net: nn.Sequential, s: list[Tensor], error: Tensor, g: float) -> list[Tensor]:
    """Almeida and Pineda's deltas of a tanh net, one sample after another, with the output's delta given."""
    sizes = [t.shape[1] for t in s]
    w1, w2 = net[1].affine.weight.detach(), net[2].affine.weight.detach()
    found = [torch.zeros_like(s[0]), torch.zeros_like(s[1]), error]
    for n in range(len(error)):
        f1, f2 = (torch.diag(1 - t[n] ** 2) for t in s[:2])
        rows = [
            torch.cat([torch.eye(sizes[0], dtype=w1.dtype), -f1 @ w1.T], 1),
            torch.cat([-g * f2 @ w1, torch.eye(sizes[1], dtype=w1.dtype)], 1),
        ]
        known = torch.cat([torch.zeros(sizes[0], dtype=w1.dtype), f2 @ w2.T @ error[n]])
        solved = torch.linalg.solve(torch.cat(rows), known)
        found[0][n], found[1][n] = solved.split(sizes[:2])
    return found


@pytest.mark.parametrize("g", [1.0, 0.5])
def test_under_a_weak_clamp_it_is_almeida_and_pinedas_error(g: float) -> None:
    x, y = batch(6, 5, 3)
    net = small_net(5, 8, 7, 3)
    s = [t.detach() for t in unrolled(net, x, g)]
    deltas = settled_errors(net, s, s[-1] - nn.functional.one_hot(y, 3), g)
    below = [x, *s]
    expected = {f"net.{i}.affine.weight": d.T @ below[i] / 6 for i, d in enumerate(deltas)}
    errors = []
    for clamp in (1e-2, 1e-3):
        rule = GeneRec(net, kind="plain", clamp=clamp, feedback=g, **EXACT)
        rule.optimizers = {k: torch.optim.SGD(net[int(k[-1])].parameters(), lr=0.0) for k in rule.optimizers}
        found = gradients(rule, x, y)
        errors.append(distance({k: v for k, v in found.items() if "weight" in k}, expected))
    assert errors[1] < 2e-3 and 0.95 < math.log10(errors[0] / errors[1]) < 1.05


@pytest.mark.parametrize("kind", ["plain", "midpoint", "symmetrised"])
def test_ways_of_their_own_learn_with_their_sender_above(kind: str) -> None:
    x, y = batch(6, 5, 3)
    g = 0.5
    rule = GeneRec(small_net(5, 8, 3), kind=kind, ways="own", feedback=g, **EXACT)
    up, down = (t.detach().clone() for t in (rule.net[1].affine.weight, rule.ways["1"]))
    assert not torch.allclose(up, down) and float(down.std() / up.std()) == pytest.approx(1.0, rel=0.5)
    shown = nn.functional.one_hot(y, 3).double()
    with torch.no_grad():
        drive, bias = rule.net[0].affine(x), rule.net[1].affine.bias.clone()
        h, o = torch.zeros(6, 8, dtype=x.dtype), torch.zeros(6, 3, dtype=x.dtype)
        for _ in range(300):
            h, o = torch.tanh(drive + g * o @ down), h @ up.T + bias
        plus = torch.tanh(drive + g * shown @ down)
    found = gradients(rule, x, y)
    assert set(found) == {f"net.{i}.affine.{p}" for i in (0, 1) for p in ("weight", "bias")} | {"ways.1"}
    below, above = (h, o) if kind == "plain" else ((h + plus) / 2, (o + shown) / 2)
    expected = [(shown - o).T @ below / -6, above.T @ (plus - h) / -6]
    if kind == "symmetrised":
        expected = [sum(expected), sum(expected)]
    for name, gradient in zip(("net.1.affine.weight", "ways.1"), expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found["net.0.affine.weight"], (plus - h).T @ x / -6 / g, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found["net.1.affine.bias"], (o - shown).mean(0), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{"kind": "half"}, {"ways": "none"}, {"clamp": 0.0}, {"clamp": 1.5}], ids=lambda o: next(iter(o))
)
def test_bad_arguments_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="choose a kind among plain, midpoint, symmetrised"):
        GeneRec(small_net(5, 8, 3), **options)


def test_convolutions_are_refused() -> None:
    with pytest.raises(UsageError, match="block 0 is no linear layer"):
        GeneRec(nets.conv((1, 4, 4), [2], classes=3, act="tanh"), Problem((1, 4, 4), 3))
