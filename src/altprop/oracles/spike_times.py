"""Plasticity by the times of spikes, against pairs of spikes one by one."""

import math
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.alignment import updates
from altprop.oracles.check import Check, apart
from altprop.rule import Problem
from altprop.rules.hebbian.stdp import STDP

PLUS, MINUS, TAU_PLUS, TAU_MINUS, W_MAX, THRESHOLD = 1.0, 0.7, 4.0, 6.0, 1.2, 2.0


def small(**options: Any) -> STDP:
    """STDP on six inputs and five neurons, in float64."""
    net = nets.spike_coded([6, 5], steps=12, threshold=THRESHOLD, generator=torch.Generator().manual_seed(1)).double()
    given = {"plus": PLUS, "minus": MINUS, "tau_plus": TAU_PLUS, "tau_minus": TAU_MINUS, "w_max": W_MAX, **options}
    return STDP(net, Problem((6,), 3), optimizer=partial(torch.optim.SGD, lr=1.0), **given)


def first(rule: STDP) -> tuple[nets.Block, nn.Linear, nn.Module]:
    """The first block that learns, its layer and its norm."""
    block = rule.net[1]
    assert isinstance(block, nets.Block) and isinstance(block.affine, nn.Linear) and block.norm is not None
    return block, block.affine, block.norm


def spikes(rows: int, neurons: int, seed: int, steps: int = 12) -> Tensor:
    draw = torch.rand(rows, steps, neurons, generator=torch.Generator().manual_seed(seed))
    return (draw < 0.3).double()


def a_pair_of_spikes() -> Iterator[Check]:
    """One spike of an input and one of a neuron, against A exp(-|dt| / tau); no spike at all: no change."""
    rule, steps = small(mu=0.0), 30
    w = torch.full((1, 1), 0.5, dtype=torch.float64)
    for dt in (-10, -1, 0, 1, 10):
        pre, post = torch.zeros(2, 1, steps, 1, dtype=torch.float64)
        pre[0, 15], post[0, 15 + dt] = 1.0, 1.0
        expected = PLUS * math.exp(-dt / TAU_PLUS) if dt >= 0 else -MINUS * math.exp(dt / TAU_MINUS)
        found = float(rule.pairs(w, pre, post)) * steps
        yield Check(f"neuron {dt:+d} steps from its input", abs(found - expected), 1e-15)
    silent = torch.zeros(2, steps, 1, dtype=torch.float64)
    one = torch.ones_like(silent)
    for what, pre, post in (
        ("no spike", silent, silent),
        ("inputs alone", one, silent),
        ("neurons alone", silent, one),
    ):
        yield Check(what, float(rule.pairs(w, pre, post).abs().max()), 0.0)
    rule = small()
    layer = first(rule)[1]
    before = layer.weight.detach().clone()
    rule.absorb(torch.zeros(4, 6, dtype=torch.float64))
    yield Check("weights after a batch of black inputs", apart(layer.weight.detach(), before), 1e-15)


def one_by_one(w: Tensor, pre: Tensor, post: Tensor, mu: float) -> Tensor:
    """The mean over batch and time of what each pair of spikes changes."""
    change = torch.zeros_like(w)
    rows, steps, _ = pre.shape
    for j, i in torch.cartesian_prod(torch.arange(len(w)), torch.arange(w.shape[1])).tolist():
        up, down = (W_MAX - float(w[j, i])) ** mu, float(w[j, i]) ** mu
        for b in range(rows):
            for t_j in post[b, :, j].nonzero().flatten().tolist():
                for t_i in pre[b, :, i].nonzero().flatten().tolist():
                    if t_i <= t_j:
                        change[j, i] += PLUS * up * math.exp((t_i - t_j) / TAU_PLUS)
                    else:
                        change[j, i] -= MINUS * down * math.exp((t_j - t_i) / TAU_MINUS)
    return change / (rows * steps)


def all_pairs_of_spikes_one_by_one() -> Iterator[Check]:
    """Changes by traces, against loops over all pairs of spikes; and a whole step of the rule."""
    w = torch.rand(5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pre, post = spikes(3, 6, 0), spikes(3, 5, 1)
    for mu in (0.0, 0.5, 1.0):
        expected = one_by_one(w, pre, post, mu)
        yield Check(f"pairs with mu = {mu}", apart(small(mu=mu).pairs(w, pre, post), expected), 1e-14)
    wrong = small(tau_plus=TAU_PLUS + 0.5).pairs(w, pre, post)
    yield Check("with another time constant", apart(wrong, expected), 0.01, "at least", control=True)
    for compete in (True, False):
        rule, x = small(compete=compete), torch.rand(3, 6, generator=torch.Generator().manual_seed(3)).double()
        found, _ = updates(rule, x, torch.tensor([0, 1, 2]))
        pre = rule.net[0](x)
        block, layer, _ = first(rule)
        w = layer.weight.detach()
        post = (rule.fire(1, layer(pre)) if compete else block(pre)).detach()
        expected = one_by_one(w, pre, post, 1.0)
        yield Check(
            f"a step, {'with' if compete else 'without'} competition", apart(change_of(found, w), -expected), 1e-14
        )


def change_of(found: Any, w: Tensor) -> Tensor:
    """The gradient of the first block's weight."""
    row: Tensor = found["blocks.1"][: w.numel()]
    return row.view_as(w)


def a_batch_is_the_mean_of_its_samples() -> Iterator[Check]:
    """The change by a batch of two, against the mean of the changes by its samples alone."""
    rule = small()
    w = first(rule)[1].weight.detach()
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(4)).double()
    y = torch.tensor([0, 1])
    both, one, other = (change_of(updates(rule, x[s], y[s])[0], w) for s in (slice(0, 2), slice(0, 1), slice(1, 2)))
    yield Check("weights", apart(both, (one + other) / 2), 1e-14)


def winners_neuron_by_neuron() -> Iterator[Check]:
    """Spikes under competition, against each sample's neurons in a loop; and what stays when a body learns."""
    rule = small()
    u = 2 * torch.rand(4, 12, 5, generator=torch.Generator().manual_seed(5)).double()
    _, layer, norm = first(rule)
    found = rule.fire(1, u)
    expected = torch.zeros_like(found)
    for b in range(4):
        v = [0.0] * 5
        for t in range(12):
            drive = norm(u[b, t]).tolist()
            v = [0.9 * old + new for old, new in zip(v, drive, strict=True)]
            best = max(range(5), key=v.__getitem__)
            if v[best] >= THRESHOLD:
                expected[b, t, best], v = 1.0, [0.0] * 5
    yield Check("spikes", float((found - expected).abs().max()), 0.0)
    often = float(expected.sum(2).mean())
    yield Check("share of time steps with a spike, from a half", abs(often - 0.5), 0.3)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(6)).double()
    sums, drive = weight.sum(1), layer(rule.net[0](x)).detach()
    counts = rule.fire(1, drive).sum((0, 1)).tolist()
    sigma = sum(statistics.pstdev(row) for row in drive.flatten(0, 1).tolist()) / (8 * 12)
    moves = [rule.homeostasis * sigma * (1 - 5 * n / sum(counts)) for n in counts]
    rule.absorb(x)
    yield Check("sums of weights", apart(weight.sum(1), sums), 1e-14)
    yield Check("excitabilities", apart(bias, torch.tensor(moves, dtype=bias.dtype)), 1e-14)
