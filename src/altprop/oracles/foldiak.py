"""Földiák's rule against loops over patches, an ODE solver, and what the paper shows of bars."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.oracles.one_by_one import LAYERS, draw, made, patches
from altprop.rule import Problem
from altprop.rules.hebbian.foldiak import Foldiak

BARS, STEPS, BATCH, P = 16, 800, 32, 1 / 8


def alone(layer: nn.Module, shape: tuple[int, ...], rate: float, **options: Any) -> tuple[Foldiak, nets.Settling]:
    """The rule without a readout on one layer, by gradient descent at this rate, and its units."""
    net = nn.Sequential(nets.Block(layer, pool=nn.Flatten())).double()
    sgd = partial(torch.optim.SGD, lr=rate)
    rule = Foldiak(net, Problem(shape, 2), readout=None, decay=False, settle=2.0, optimizer=sgd, **options)
    block = rule.net[0]
    assert isinstance(block, nets.Block) and isinstance(block.activation, nets.Settling)
    return rule, block.activation


def inhibiting(units: int, size: float) -> Tensor:
    """Lateral weights from -size to 0."""
    w = -size * draw(units, units, seed=3).sigmoid()
    return (w + w.T).div(2).fill_diagonal_(0.0)


def foldiak_equals_patches_one_by_one() -> Iterator[Check]:
    """Weights, lateral weights and thresholds after a step, and each patch by itself in plain loops."""
    p, rate, alpha, gamma, slope, pace, sweeps = 0.3, 0.2, 0.7, 0.5, 4.0, 0.3, 12
    for name, arguments in LAYERS.items():
        layer, shape = made(arguments)
        factors: dict[str, Any] = {"lateral": alpha / rate, "threshold": gamma / rate, "p": p}
        rule, units = alone(layer, shape, rate, slope=slope, sweeps=sweeps, pace=pace, **factors)
        rule.assign(units.weight, inhibiting(5, 0.08))
        rule.assign(units.thresholds, draw(5, seed=4))
        q, w, t = layer.weight.detach().flatten(1).clone(), units.weight.detach().clone(), units.thresholds.clone()
        x = draw(7, *shape, seed=1)
        seen = patches(layer, x)
        dq, dw, dt = torch.zeros_like(q), torch.zeros_like(w), torch.zeros_like(t)
        for patch in seen:
            state = [0.0] * 5
            for _ in range(sweeps):
                push = [q[i] @ patch + sum(w[i, j] * state[j] for j in range(5)) - t[i] for i in range(5)]
                state = [(1 - pace) * state[i] + pace / (1 + (-slope * push[i]).exp()) for i in range(5)]
            y = [float(s > 0.5) for s in state]
            for i in range(5):
                dq[i] += rate * y[i] * (patch - q[i]) / len(seen)
                dt[i] += gamma * (y[i] - p) / len(seen)
                for j in range(5):
                    dw[i, j] -= alpha * (y[i] * y[j] - p**2) / len(seen) * (i != j)
        rule.absorb(x)
        yield Check(f"weights, {name}", apart(layer.weight.detach().flatten(1), q + dq), 1e-12)
        yield Check(f"lateral weights, {name}", apart(units.weight.detach(), (w + dw).clamp(max=0.0)), 1e-12)
        yield Check(f"thresholds, {name}", apart(units.thresholds.detach(), (t + dt).detach()), 1e-12)


def rest_is_the_equations_own() -> Iterator[Check]:
    """Where units rest, the equation of motion put into words once more, and scipy's solver of its path."""
    units = nets.Settling(12, sweeps=400).double().requires_grad_(False)
    units.weight.copy_(inhibiting(12, 3.0))
    units.thresholds.copy_(draw(12, seed=6))
    u = 2.0 * draw(20, 12, seed=7)
    state = units.rest(u)
    still = torch.sigmoid(10.0 * (u + state @ units.weight - units.thresholds)) - state
    yield Check("motion that is left after 400 sweeps", float(still.abs().max()), 1e-9)

    def motion(_: float, y: Any, drive: Tensor) -> Any:
        now = torch.as_tensor(y)
        return torch.sigmoid(10.0 * (drive + units.weight @ now - units.thresholds)).sub(now).numpy()

    paths = [
        solve_ivp(motion, (0.0, 40.0), [0.0] * 12, "LSODA", args=(drive,), rtol=1e-8, atol=1e-10).y[:, -1]
        for drive in u
    ]
    solved = torch.stack([torch.as_tensor(path) for path in paths])
    yield Check("states at rest, and at the end of scipy's paths", float((state - solved).abs().max()), 1e-6)
    units.sweeps = 50
    yield Check("codes after 50 sweeps that differ", float((units(u) != (solved > 0.5)).sum()), 0.0)


def bars(seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Images of 8x8, and which of 8 rows and 8 columns are lit in each, one in eight of them."""
    lit = torch.rand(size, BARS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < P
    images = lit[:, :8, None] | lit[:, None, 8:]
    return images.flatten(1).double(), lit.double()


@torch.no_grad()
def found(seed: int, **options: Any) -> tuple[Tensor, Tensor, nets.Settling]:
    """After learning bars: how much oftener each unit answers with each bar than without, its share of answers, and the
    units."""
    layer = nn.Linear(64, BARS, bias=False).double()
    layer.weight.copy_(nn.functional.normalize(draw(BARS, 64, seed=seed).abs(), dim=1))
    rule, units = alone(layer, (64,), 0.3, p=P, sweeps=25, **options)
    for step in range(STEPS):
        rule.absorb(bars(10_000 * seed + step, BATCH)[0])
    x, lit = bars(9999 + seed, 2000)
    y = rule.net(x)
    return (y.T @ lit) / lit.sum(0) - (y.T @ (1 - lit)) / (1 - lit).sum(0), y.mean(0), units


def each_unit_finds_a_bar() -> Iterator[Check]:
    """The paper's bars: 16 units come to answer one of 16 bars each, and a share p of all images."""
    for seed in range(3):
        more, share, units = found(seed)
        best, whose = more.max(1)
        answered = best > 0.8
        yield Check(f"units that answer one bar, seed {seed}", float(answered.sum()), 15.0, "at least")
        yield Check(f"bars that are answered, seed {seed}", float(len(whose[answered].unique())), 15.0, "at least")
        yield Check(f"a unit's share of answers and p, seed {seed}", float((share - P).abs().max()), 0.03)
        w = units.weight.detach()
        yield Check(f"lateral weights above 0, on the diagonal, or not symmetric, seed {seed}", off(w), 0.0)
    more, share, _ = found(0, lateral=0.0)
    best, whose = more.max(1)
    covered = float(len(whose[best > 0.8].unique()))
    yield Check("bars that are answered, without lateral weights", covered, 3.0, control=True)
    yield Check("a unit's share of answers and p, by thresholds alone", float((share - P).abs().max()), 0.03)
    _, share, _ = found(0, lateral=0.0, threshold=0.0)
    away = float((share - P).abs().max())
    yield Check("a unit's share of answers and p, with neither", away, 0.5, "at least", control=True)


def off(w: Tensor) -> float:
    """What lateral weights must not be."""
    return float(w.clamp_min(0.0).max() + w.diagonal().abs().max() + (w - w.T).abs().max())
