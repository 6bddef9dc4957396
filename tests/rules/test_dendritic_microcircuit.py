"""DendriticMicrocircuit against its equations sample by sample, backprop, and what its interneurons promise."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.dendritic_microcircuit import DendriticMicrocircuit, Potentials
from altprop.rules.losses import losses
from steps import gradients

SGD = partial(torch.optim.SGD, lr=0.1)
STILL = partial(torch.optim.SGD, lr=0.0)


def batch(size: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=g, dtype=torch.float64), torch.randint(classes, (size,), generator=g)


def build(act: str = "tanh", widths: tuple[int, ...] = (8, 7, 5), **options: object) -> DendriticMicrocircuit:
    net = nets.mlp([6, *widths], classes=4, act=act).double()
    return DendriticMicrocircuit(net, Problem((6,), 4), **{"optimizer": SGD, **options})


def by_hand(rule: DendriticMicrocircuit, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One sample after another, with vectors and the letters of the rule's docstring."""
    layers = [block.affine for block in rule.net]
    fs = [block.activation or (lambda u: u) for block in rule.net]
    k, last = rule.nudge, len(layers) - 1
    found = {name: torch.zeros_like(v) for name, v in rule.named_parameters()}

    def add(name: str, delta: Tensor, r: Tensor) -> None:
        found[f"{name}.weight"] -= torch.outer(delta, r) / k / len(x)
        found[f"{name}.bias"] -= delta / k / len(x)

    for sample, label in zip(x, y, strict=True):
        r, v, a, j, i = [sample], [], {}, {}, {}
        for w, f in zip(layers, fs, strict=True):
            v.append(w.weight @ r[-1] + w.bias)
            r.append(f(v[-1]))
        target = v[last] - v[last].softmax(0) + torch.eye(4)[label]
        u = list(v)
        for sweep in range(rule.sweeps):
            for n in range(1, last + 1) if sweep else ():
                v[n] = layers[n].weight @ r[n] + layers[n].bias
            u[last] = (1 - k) * v[last] + k * target
            r[last + 1] = u[last]
            for n in reversed(range(last)):
                cells, m = rule.circuit(n)
                j[n] = cells.weight @ r[n + 1] + cells.bias
                i[n] = (1 - k) * j[n] + k * u[n + 1]
                a[n] = rule.way_down(n) @ r[n + 2] - m @ fs[n + 1](i[n])
                u[n] = v[n] + a[n]
                r[n + 1] = fs[n](u[n])
        for n in range(last + 1):
            add(f"net.{n}.affine", fs[n](u[n]) - fs[n](v[n]), r[n])
            if n < last and rule.plastic:
                add(f"interneurons.{n}", fs[n + 1](i[n]) - fs[n + 1](j[n]), r[n + 1])
                found[f"lateral.{n}.0"] -= torch.outer(a[n], fs[n + 1](i[n])) / k / len(x)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": "random", "sweeps": 1},
        {"start": "random", "sweeps": 3, "down": "transposed"},
        {"plastic": False, "sweeps": 3, "nudge": 0.6},
    ],
    ids=["default", "random", "transposed", "held"],
)
@pytest.mark.parametrize("act", ["relu", "tanh"])
def test_updates_equal_the_equations_sample_by_sample(act: str, options: dict[str, object]) -> None:
    rule = build(act, **options)
    x, y = batch()
    with torch.no_grad():
        expected = by_hand(rule, x, y)
    found = gradients(rule, x, y)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert bool(value.any())
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("down", ["random", "transposed"])
@pytest.mark.parametrize("plastic", [False, True])
def test_in_the_self_predicting_state_nothing_is_left_without_a_target(down: str, plastic: bool) -> None:
    net = nets.mlp([6, 8, 7], classes=2, act="tanh").double()
    rule = DendriticMicrocircuit(net, Problem((6,), 2, "regression"), down=down, plastic=plastic, optimizer=SGD)
    x, _ = batch()
    with torch.no_grad():
        y = rule(x)
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    metrics = rule.step(x, y)
    assert metrics["apical"] < 1e-15 and metrics["residual"] < 1e-15
    for name, p in rule.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=0.0, atol=1e-13)
    assert rule.step(x, y + 1)["apical"] > 1e-3


@pytest.mark.parametrize("sweeps", [1, 3])
def test_with_a_weak_target_the_updates_are_backprops_and_the_error_falls_with_it(sweeps: int) -> None:
    def error(nudge: float) -> float:
        rule = build(nudge=nudge, sweeps=sweeps, down="transposed")
        x, y = batch()
        named = {name: p for name, p in rule.named_parameters() if name.startswith("net")}
        loss = losses(rule.net(x), y, "classification").mean()
        expected = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        found = gradients(rule, x, y)
        return max(float((found[name] - v).norm() / v.norm()) for name, v in expected.items())

    large, small = error(1e-3), error(1e-4)
    assert small < 1e-3
    assert 8 < large / small < 12.5


def test_interneurons_find_the_self_predicting_state_from_random_synapses() -> None:
    """They learn on random inputs without a target while the pyramidal cells' own synapses stay as they are."""
    net = nets.mlp([6, 8, 7], classes=3, act="tanh").double()
    optimizer = {"blocks": STILL, "interneurons": partial(torch.optim.SGD, lr=0.5), "lateral": partial(SGD, lr=0.03)}
    rule = DendriticMicrocircuit(net, Problem((6,), 3, "regression"), start="random", optimizer=optimizer)
    g = torch.Generator().manual_seed(2)

    def missing() -> list[float]:
        """How far the interneurons' synapses, in and out, are from those that they stand for; the worst layer's."""
        inner = [rule.circuit(i)[0].weight - net[i + 1].affine.weight for i in range(2)]
        outer = [rule.circuit(i)[1] - rule.way_down(i) for i in range(2)]
        scales = [net[i + 1].affine.weight.norm() for i in range(2)]
        return [max(float((d.norm() / s).detach()) for d, s in zip(ds, scales, strict=True)) for ds in (inner, outer)]

    before, first = missing(), None
    for _ in range(500):
        x = 2 * torch.randn(32, 6, generator=g, dtype=torch.float64)
        metrics = rule.step(x, rule(x).detach())
        first = metrics["apical"] if first is None else first
    after = missing()
    assert min(before) > 1.0 and max(after) < 0.05
    assert first is not None and metrics["apical"] < 0.01 * first


def test_sweeps_settle_where_the_equations_hold() -> None:
    x, y = batch()
    residuals = [float(build(sweeps=s, nudge=0.3).step(x, y)["residual"]) for s in (1, 2, 4, 60)]
    assert residuals[0] > residuals[1] > residuals[2] > residuals[3] and residuals[3] < 1e-12
    rule = build()
    with torch.no_grad():
        now = Potentials(rule.net, x)
        target = now.basal[-1] + 1
        rule._settle(now, target)
        for _ in range(60):
            now.climb()
            rule._settle(now, target)
        for i, block in enumerate(rule.net):
            torch.testing.assert_close(now.basal[i], block.affine(now.rates[i]), rtol=1e-10, atol=1e-12)
        cells, back = rule.circuit(0)
        said = ((1 - rule.nudge) * cells(now.rates[1]) + rule.nudge * now.potentials[1]).tanh()
        assert float(now.apical[0].abs().mean()) > 1e-3
        apical = now.rates[2] @ rule.way_down(0).T - said @ back.T
        torch.testing.assert_close(now.potentials[0], now.basal[0] + apical, rtol=1e-10, atol=1e-12)


def test_the_way_down_follows_the_weights_only_where_it_is_transposed() -> None:
    x, y = batch()
    for down in ("random", "transposed"):
        rule = build(down=down, plastic=False)
        before = rule.way_down(0).clone()
        rule.step(x, y)
        assert torch.equal(before, rule.way_down(0)) == (down == "random")
        assert torch.equal(rule.way_down(0), rule.net[1].affine.weight.T) == (down == "transposed")


def test_what_is_held_costs_no_parameters() -> None:
    assert not [name for name, _ in build(plastic=False).named_parameters() if not name.startswith("net")]
    assert {"interneurons.0", "interneurons.2", "lateral.0", "lateral.2"} <= set(build().optimizers)
    assert not build(plastic=False, down="transposed").claims.training_only and build().claims.training_only


def test_operations_equal_a_hand_count() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    for sweeps in (1, 3):
        rule = DendriticMicrocircuit(nets.mlp([n0, n1, n2], classes=c), sweeps=sweeps)
        rule.step(x, y)
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        first, later = n0 * n1, n1 * n2 + n2 * c
        sweep = 3 * later  # interneurons, the way down and theirs
        assert trace.operations == 2 * b * (2 * (first + later) + sweeps * sweep + (sweeps - 1) * later + 2 * later)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nudge": 0.0}, "nudge must lie between 0 and 1"),
        ({"nudge": 1.0}, "nudge must lie between 0 and 1"),
        ({"sweeps": 0}, "at least 1"),
        ({"down": "learned"}, "'random' or 'transposed'"),
        ({"start": "zero"}, "'self-predicting' or 'random'"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(**options)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nets.mlp([6, 8], classes=4, norm=True), "a linear layer and an activation, and nothing else"),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), "block 1 must be"),
        (nets.mlp([6, 8]), "output block"),
        (nets.mlp([6, 8], classes=4, act="sign"), "steps do not"),
        (nets.rates([6, 8], classes=4), "live in time"),
    ],
)
def test_nets_that_it_cannot_train_are_refused(net: nn.Sequential, words: str) -> None:
    assert words in str(DendriticMicrocircuit.refuses(net, Problem((6,), 4)))
