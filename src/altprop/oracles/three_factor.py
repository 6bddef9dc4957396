"""Eligibility traces and rewards, against sums over time, autograd of a log-likelihood, and a task with a delay."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.alignment import updates
from altprop.oracles.check import Check, apart
from altprop.rules.energy.linear_blocks import layer_of
from altprop.rules.hebbian.three_factor import ThreeFactor

SGD = partial(torch.optim.SGD, lr=1.0)


def small(modulator: str, decay: float = 0.0, streams: int = 1) -> ThreeFactor:
    net = nets.mlp([6, 9, 8], classes=3, act="tanh", generator=torch.Generator().manual_seed(1)).double()
    return ThreeFactor(net, modulator=modulator, decay=decay, streams=streams, optimizer=SGD)


def sample(rows: int, steps: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(steps, rows, 6, generator=draw, dtype=torch.float64), torch.randint(
        3, (steps, rows), generator=draw
    )


def factors(rule: ThreeFactor, x: Tensor, y: Tensor) -> list[Tensor]:
    """M_l post_l (h, 1)^T of one sample, written out for tanh blocks."""
    inputs, hidden = [x], list(rule.net)[:-1]
    for block in hidden:
        inputs.append(torch.tanh(layer_of(block).weight @ inputs[-1] + layer_of(block).bias))
    scores = rule.net(x[None])[0].detach()
    e = scores.softmax(0) - nn.functional.one_hot(y, 3)
    ms = [-(e @ rule.get_buffer(f"feedback_{i}")) * (1 - inputs[i + 1] ** 2) for i in range(len(hidden))]
    one = torch.ones(1, dtype=x.dtype)
    return [torch.outer(m, torch.cat([h, one])).detach() for m, h in zip([*ms, -e], inputs, strict=True)]


def rows(found: Tensor, i: int, rule: ThreeFactor) -> Tensor:
    """A block's gradient as (units, inputs + 1), the bias last."""
    k, d = layer_of(rule.net[i]).weight.shape
    return torch.cat([found[: k * d].view(k, d), found[k * d :, None]], 1)


def an_error_modulates_each_synapse() -> Iterator[Check]:
    """Updates by an error, against M post pre^T of each sample in a loop."""
    rule, (x, y) = small("error"), sample(5)
    found, _ = updates(rule, x[0], y[0])
    for i in range(3):
        expected = -torch.stack([factors(rule, a, b)[i] for a, b in zip(x[0], y[0], strict=True)]).mean(0)
        yield Check(f"update of block {i}", apart(rows(found[f"blocks.{i}"], i, rule), expected), 1e-12)


def traces_are_sums_over_time() -> Iterator[Check]:
    """A trace after seven steps, against the sum of decay^age post pre^T over all of them."""
    rule, (x, _) = small("reward", decay=0.8, streams=2), sample(2, 7)
    again = torch.Generator().manual_seed(0)
    again.set_state(rule.generator.get_state())
    expected = torch.zeros(2, 9, 7, dtype=torch.float64)
    for row in x:
        rule.act(row)
        xi = torch.randn(2, 9, generator=again, dtype=torch.float64)
        torch.randn(2, 8, generator=again, dtype=torch.float64)
        torch.multinomial(torch.ones(2, 3, dtype=torch.float64), 1, generator=again)
        for stream in range(2):
            seen = torch.cat([row[stream], torch.ones(1, dtype=torch.float64)])
            expected[stream] = 0.8 * expected[stream] + torch.outer(xi[stream] / rule.noise, seen)
    yield Check("trace of block 0 after seven steps", apart(rule.get_buffer("trace_0"), expected), 1e-12)


def a_reward_follows_the_likelihood_of_what_was_drawn() -> Iterator[Check]:
    """An update by a reward, against the reward times autograd of the log-likelihood of the noise and the action."""
    rule, (x, _) = small("reward"), sample(5)
    again = torch.Generator().manual_seed(0)
    again.set_state(rule.generator.get_state())
    action = rule.act(x[0])
    reward = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    parameters = list(rule.net.parameters())
    before = [p.detach().clone() for p in parameters]
    log_p, h = torch.zeros(5, dtype=torch.float64), x[0]
    for block in list(rule.net)[:-1]:
        u = layer_of(block)(h)
        xi = torch.randn(u.shape, generator=again, dtype=torch.float64)
        drawn = (u + rule.noise * xi).detach()
        log_p = log_p - (drawn - u).square().sum(1) / (2 * rule.noise**2)
        h = torch.tanh(drawn)
    log_p = log_p + rule.net[-1](h).log_softmax(1).gather(1, action[:, None])[:, 0]
    slopes = torch.autograd.grad((reward * log_p).mean(), parameters)
    rule.reinforce(reward)
    for i, (p, old, slope) in enumerate(zip(parameters, before, slopes, strict=True)):
        yield Check(f"change of parameter {i}", apart(p.detach() - old, slope), 1e-10)


def a_delayed_reward_needs_traces() -> Iterator[Check]:
    """A cue, an action, two empty steps, and only then the reward: learnt with traces, and not without."""
    for decay in (0.9, 0.0):
        yield Check(
            f"share of right actions with decay {decay}",
            delayed(decay),
            0.95 if decay else 0.7,
            "at least" if decay else "at most",
            control=not decay,
        )


def delayed(decay: float, streams: int = 64, episodes: int = 250) -> float:
    """The share of right first actions in the last 20 episodes."""
    net = nets.mlp([3], classes=2, generator=torch.Generator().manual_seed(0)).double()
    rule = ThreeFactor(
        net, modulator="reward", decay=decay, streams=streams, optimizer=partial(torch.optim.SGD, lr=0.3)
    )
    draw, right = torch.Generator().manual_seed(1), []
    for _ in range(episodes):
        rule.forget()
        cue = torch.randint(2, (streams,), generator=draw)
        action = rule.act(nn.functional.one_hot(cue, 3).double())
        for _ in range(2):
            rule.act(nn.functional.one_hot(torch.full_like(cue, 2), 3).double())
        rule.reinforce((action == cue).double())
        right.append(float((action == cue).double().mean()))
    return sum(right[-20:]) / 20
