"""Spiking neurons that learn from traces, against backpropagation through time, and traces written out in full."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.alignment import updates
from altprop.oracles.check import Check, apart
from altprop.rule import Problem
from altprop.rules.hebbian.e_prop import EProp

INPUTS, CLASSES, DECAY, THRESHOLD, GAMMA = 5, 3, 0.8, 0.7, 0.4


def small(units: tuple[int, ...], feedback: str, kappa: float, recurrent: float = 1.0) -> EProp:
    """e-prop on a small net in float64, whose recurrent weights are multiplied by `recurrent`."""
    net = nets.recurrent_spiking(
        [INPUTS, *units],
        classes=CLASSES,
        steps=None,
        readout=kappa,
        decay=DECAY,
        threshold=THRESHOLD,
        dampening=GAMMA,
        generator=torch.Generator().manual_seed(1),
    ).double()
    rule = EProp(net, Problem((None, INPUTS), CLASSES), feedback=feedback)
    for i in range(len(units)):
        block_of(rule, i).recurrent.weight.detach().mul_(recurrent)
    return rule


def block_of(rule: EProp, i: int) -> nets.RecurrentIntegrateAndFire:
    block = rule.net[i]
    assert isinstance(block, nets.RecurrentIntegrateAndFire)
    return block


def sample(rows: int = 6, steps: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(rows, steps, INPUTS, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (rows,), generator=draw)


class Spike(torch.autograd.Function):
    """A step with the pseudo-derivative."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= THRESHOLD).to(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        v: Tensor = ctx.saved_tensors[0]
        return gradients[0] * pseudo_derivative(v)


def pseudo_derivative(v: Tensor) -> Tensor:
    return GAMMA / THRESHOLD * (1 - ((v - THRESHOLD) / THRESHOLD).abs()).clamp_min(0.0)


def through_time(rule: EProp, x: Tensor, y: Tensor, kappa: float, detached: bool) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over time by autograd through the unrolled net of one block: the recurrent block's and
    the output's, in the order of their parameters. detached: whether spikes that come back through R are constants."""
    block, output = block_of(rule, 0), rule.net[-1]
    v = z = f = torch.zeros(len(x), len(block.recurrent.weight), dtype=x.dtype)
    loss = torch.zeros((), dtype=x.dtype)
    for x_t in x.unbind(1):
        own = z.detach() if detached else z
        v = DECAY * v + block.input(x_t) + own @ block.recurrent.weight.T - THRESHOLD * z.detach()
        z = Spike.apply(v)  # type: ignore[no-untyped-call]
        f = kappa * f + (1 - kappa) * z
        loss = loss + nn.functional.cross_entropy(output(f), y) / x.shape[1]
    parts = [list(block.parameters()), list(output.parameters())]
    slopes = iter(torch.autograd.grad(loss, [p for part in parts for p in part]))
    hidden, out = (torch.cat([next(slopes).flatten() for _ in part]) for part in parts)
    return hidden, out


def e_prop_equals_backprop_through_time() -> Iterator[Check]:
    """Updates with symmetric feedback, against autograd through time, recurrent spikes cut off or absent."""
    x, y = sample()
    for kappa in (0.0, 0.6):
        for recurrent in (0.0, 1.0):
            rule = small((7,), "symmetric", kappa, recurrent)
            found, _ = updates(rule, x, y)
            hidden, out = through_time(rule, x, y, kappa, detached=bool(recurrent))
            how = f"{'recurrent spikes cut off' if recurrent else 'no recurrent weights'}, kappa {kappa}"
            yield Check(f"recurrent block, {how}", apart(found["blocks.0"], hidden), 1e-12)
            yield Check(f"output block, {how}", apart(found["blocks.2"], out), 1e-12)
    wrong, _ = through_time(rule, x, y, kappa=0.5, detached=True)
    yield Check(
        "recurrent block, with another kappa than the net's", apart(found["blocks.0"], wrong), 0.01, "at least", True
    )


def e_prop_points_where_backprop_does() -> Iterator[Check]:
    """Cosine with the whole of backpropagation through time, for six neurons; it falls with the recurrent weights."""
    x, y = sample(rows=32)
    for recurrent in (0.25, 1.0, 8.0):
        rule = small((6,), "symmetric", 0.6, recurrent)
        found, _ = updates(rule, x, y)
        whole, _ = through_time(rule, x, y, 0.6, detached=False)
        cosine = float(torch.cosine_similarity(found["blocks.0"], whole, 0))
        weak = recurrent <= 1
        what = f"cosine with recurrent weights times {recurrent}"
        yield Check(what, cosine, 0.99 if weak else 0.9, "at least" if weak else "at most", control=not weak)


def traces(rule: EProp, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block's h_t eps_t of every sample and time step, (batch, time, units, synapses), in full; and its spikes."""
    block = block_of(rule, i)
    v = z = torch.zeros(len(x), len(block.recurrent.weight), dtype=x.dtype)
    rows, slopes, spikes = [], [], []
    for x_t in x.unbind(1):
        rows.append(torch.cat([x_t, z, torch.ones_like(z[:, :1])], 1))
        v = DECAY * v + block.input(x_t) + z @ block.recurrent.weight.T - THRESHOLD * z
        z = (v >= THRESHOLD).to(v)
        slopes.append(pseudo_derivative(v))
        spikes.append(z)
    eps = filtered(torch.stack(rows, 1), DECAY)
    return torch.einsum("btj,bti->btji", torch.stack(slopes, 1), eps), torch.stack(spikes, 1)


def filtered(x: Tensor, decay: float) -> Tensor:
    """Sums over the past, decay^age x, along the time axis: one product with all the powers."""
    now = torch.arange(x.shape[1], dtype=x.dtype)
    age = now[:, None] - now
    powers = torch.where(age >= 0, decay ** age.clamp_min(0), 0.0)
    return torch.einsum("ts,bs...->bt...", powers, x)


def online_traces_equal_traces_in_full() -> Iterator[Check]:
    """Updates of two blocks with random feedback, against traces kept for all time steps and contracted at the end."""
    x, y = sample()
    for kappa in (0.0, 0.6):
        rule = small((7, 8), "random", kappa)
        found, _ = updates(rule, x, y)
        first, spikes = traces(rule, 0, x)
        second, last = traces(rule, 1, spikes)
        f = (1 - kappa) * filtered(last, kappa)
        e = rule.net[-1](f).softmax(-1) - nn.functional.one_hot(y, CLASSES)[:, None]
        for i, eligible in enumerate((first, second)):
            ebar = (1 - kappa) * filtered(eligible, kappa)
            signal = e @ rule.get_buffer(f"feedback_{i}")
            change = torch.einsum("btj,btji->ji", signal, ebar) / (len(x) * x.shape[1])
            inputs, units = block_of(rule, i).input.in_features, len(change)
            columns = change.split([inputs, units, 1], 1)
            expected = torch.cat([columns[0].flatten(), columns[2].flatten(), columns[1].flatten()])
            yield Check(f"block {i}, kappa {kappa}", apart(found[f"blocks.{i}"], expected), 1e-12)
