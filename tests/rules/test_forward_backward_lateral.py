"""Forward, backward and lateral weights against plain loops, and what each kind of weight comes to."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.forward_backward_lateral import ForwardBackwardLateral
from steps import gradients

SGD = partial(torch.optim.SGD, lr=0.1)
PROBLEM = Problem((6,), 4)


def rule_on(net: nn.Sequential, **options: object) -> ForwardBackwardLateral:
    """A rule whose weights are all other than zero."""
    rule = ForwardBackwardLateral(net.double(), PROBLEM, **{"optimizer": SGD, **options})
    g = torch.Generator().manual_seed(3)
    for layer in (*rule.backward_layers, *rule.lateral_layers, rule.head):
        rule.assign(layer.weight, 0.2 * torch.randn(layer.weight.shape, generator=g).double())
    return rule


def batch(count: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=g, dtype=torch.float64), torch.randint(4, (count,), generator=g)


def settled(rule: ForwardBackwardLateral, sample: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], float]:
    """x_l, h_l, s_l of one sample after all sweeps, and the length of the last change."""
    count = len(rule.net)
    s = [torch.zeros(block.affine.out_features, dtype=torch.float64) for block in rule.net]
    xs, hs, change = list(s), list(s), 0.0
    for sweep in range(rule.sweeps):
        old = [v.clone() for v in s]
        for i, block in enumerate(rule.net):
            below = sample if i == 0 else s[i - 1]
            xs[i] = (below - below.mean()) / (below.var(correction=0) + 1e-8).sqrt()
            hs[i] = block.affine.weight @ xs[i] + block.affine.bias
            if sweep > 0:
                hs[i] = hs[i] + rule.lateral_layers[i].weight @ s[i]
                if i < count - 1:
                    hs[i] = hs[i] + rule.backward_layers[i].weight @ s[i + 1]
            answer = block.activation(hs[i])
            s[i] = answer if sweep == 0 else rule.decay * s[i] + (1 - rule.decay) * answer
        change = sum(float((a - b).square().sum()) for a, b in zip(s, old, strict=True)) ** 0.5 if sweep else 0.0
    return xs, hs, s, change


@torch.no_grad()
def naive(rule: ForwardBackwardLateral, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], float]:
    """What the optimizers are given, minus the changes of the docstring, summed sample by sample; and the residual."""
    found = {name: torch.zeros_like(p) for name, p in rule.named_parameters() if "bias" not in name or "head" in name}
    residual, count = 0.0, len(x)
    for sample, label in zip(x, y, strict=True):
        xs, hs, s, change = settled(rule, sample)
        residual += change / count
        for i, block in enumerate(rule.net):
            for a in range(len(hs[i])):
                others = range(a + 1) if rule.ordered else range(len(hs[i]))
                explained = sum(hs[i][a] * hs[i][b] * block.affine.weight[b] for b in others)
                found[f"net.{i}.affine.weight"][a] -= (hs[i][a] * xs[i] - explained) / len(xs[i]) / count
            same = torch.outer(hs[i], s[i]) / len(s[i]) + rule.lateral_layers[i].weight
            found[f"lateral_layers.{i}.weight"] += (same - same.diag().diag()) / count
            if i < len(hs) - 1:
                above = torch.outer(hs[i], s[i + 1]) / len(s[i + 1]) + rule.backward_layers[i].weight
                found[f"backward_layers.{i}.weight"] += above / count
        e = rule.head(s[-1]).softmax(0) - torch.eye(4, dtype=torch.float64)[label]
        found["head.weight"] += torch.outer(e, s[-1]) / count
        found["head.bias"] += e / count
    return found, residual


@pytest.mark.parametrize("ordered", [False, True], ids=["oja", "sanger"])
@pytest.mark.parametrize(
    "net",
    [lambda: nets.mlp([6, 8, 7, 5], act="tanh"), lambda: nets.mlp([6, 8, 7]), lambda: nets.mlp([6, 5], act="sigmoid")],
    ids=["tanh", "relu", "one block"],
)
def test_one_step_equals_plain_loops(net: object, ordered: bool) -> None:
    assert callable(net)
    rule = rule_on(net(), sweeps=3, decay=0.3, ordered=ordered)
    x, y = batch()
    expected, residual = naive(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert bool(value.any())
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-13)
    metrics = rule_on(net(), sweeps=3, decay=0.3, ordered=ordered).step(x, y)
    torch.testing.assert_close(float(metrics["residual"]), residual, rtol=1e-10, atol=0.0)


def test_a_state_belongs_to_its_sample_and_begins_anew() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], act="tanh"), decay=0.5)
    x, _ = batch()
    with torch.no_grad():
        together, again = rule(x), rule(x)
        alone = torch.cat([rule(x[i : i + 1]) for i in range(len(x))])
    assert torch.equal(together, again)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)


def test_more_sweeps_settle() -> None:
    x, y = batch()
    few, many = (float(rule_on(nets.mlp([6, 8, 7], act="tanh"), sweeps=k).step(x, y)["residual"]) for k in (3, 60))
    assert few > 1e-2 and many < 1e-6


def test_a_single_sweep_is_a_forward_pass() -> None:
    rule = rule_on(nets.mlp([6, 8], act="tanh"), sweeps=1)
    x, _ = batch()
    inputs = nn.functional.layer_norm(x, (6,), eps=1e-8)
    torch.testing.assert_close(rule(x), rule.head(rule.net(inputs)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ordered", [False, True], ids=["oja", "sanger"])
def test_forward_weights_become_principal_components(ordered: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=g).double() * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    y = torch.zeros(400, dtype=torch.int64)
    rule = rule_on(nets.mlp([6, 2], act="tanh"), sweeps=1, ordered=ordered, optimizer=partial(torch.optim.SGD, lr=1.0))
    for _ in range(400):
        rule.step(x, y)
    inputs = nn.functional.layer_norm(x, (6,), eps=1e-8)
    first = torch.linalg.eigh(inputs.T @ inputs).eigenvectors[:, [-1, -2]].T
    w = rule.net[0].affine.weight.detach()
    if ordered:
        torch.testing.assert_close((w @ first.T).abs(), torch.eye(2, dtype=torch.float64), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(w.T @ w, first.T @ first, rtol=0.0, atol=1e-6)


def test_frozen_blocks_stay_and_the_readout_learns() -> None:
    net = nets.mlp([6, 8, 7])
    net.requires_grad_(False)
    rule = rule_on(net)
    before = {name: p.clone() for name, p in rule.named_parameters()}
    rule.step(*batch())
    still = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert still == {name for name in before if name.startswith("net")}


@pytest.mark.parametrize(
    ("net", "problem", "words"),
    [
        (nets.mlp([6, 8], classes=4), PROBLEM, "brings its own readout"),
        (nets.mlp([6, 8]), Problem((6,), 4, "regression"), "its readout learns classes"),
        (nets.mlp([6, 8], norm=True), PROBLEM, "build the net with altprop.nets.mlp"),
    ],
)
def test_other_nets_and_problems_are_refused(net: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ForwardBackwardLateral(net, problem)


@pytest.mark.parametrize("option", [{"sweeps": 0}, {"decay": 1.0}, {"decay": -0.1}])
def test_bad_arguments_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one sweep"):
        ForwardBackwardLateral(nets.mlp([6, 8]), PROBLEM, **option)
