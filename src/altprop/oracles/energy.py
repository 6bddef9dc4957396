"""Predictive coding against backpropagation, and against autograd of the whole energy."""

from collections.abc import Iterator

import torch
from torch import nn

from altprop import nets
from altprop.analysis.alignment import by_backprop, updates
from altprop.oracles.check import Check, apart
from altprop.rule import Problem, Rule
from altprop.rules.energy.fixed_prediction import FixedPrediction
from altprop.rules.energy.predictive_coding import PredictiveCoding
from altprop.rules.energy.z_il import ZIL


def nets_and_inputs() -> Iterator[tuple[str, nn.Sequential, torch.Tensor, torch.Tensor]]:
    """Small nets in float64, with a batch of five."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (5,), generator=draw)
    flat, image = (torch.randn(5, *shape, generator=draw, dtype=torch.float64) for shape in ((6,), (1, 8, 8)))
    for act in ("relu", "tanh", "gelu"):
        yield f"three {act} blocks", nets.mlp([6, 9, 8, 7], classes=3, act=act, generator=draw).double(), flat, y
    yield "two convolutions", nets.conv((1, 8, 8), [2, 3], classes=3, generator=draw).double(), image, y


def equals_backprop(kind: type[Rule]) -> Iterator[Check]:
    for name, net, x, y in nets_and_inputs():
        rule = kind(net, Problem(tuple(x.shape[1:]), 3))
        found, _ = updates(rule, x, y)
        expected = by_backprop(rule, x, y)
        error = max(apart(found[part], expected[part]) for part in expected)
        yield Check(f"gradients of {name}, and backpropagation's", error, 1e-12)


def fixed_prediction_equals_backprop() -> Iterator[Check]:
    """Its gradients are backpropagation's, to rounding."""
    yield from equals_backprop(FixedPrediction)


def z_il_equals_backprop() -> Iterator[Check]:
    """Its gradients are backpropagation's, to rounding."""
    yield from equals_backprop(ZIL)


def gradients_equal_autograd_of_the_whole_energy() -> Iterator[Check]:
    """States relaxed by hand, block by block, and by autograd of the energy of all states at once."""
    for name, net, x, y in nets_and_inputs():
        rule = PredictiveCoding(net, Problem(tuple(x.shape[1:]), 3), sweeps=9, rate=0.02)
        found, _ = updates(rule, x, y)
        states = [x]
        for block in list(net)[:-1]:
            states.append(block(states[-1]).detach())
        for _ in range(rule.sweeps):
            free = [s.detach().requires_grad_() for s in states[1:]]
            slopes = torch.autograd.grad(energy(net, [x, *free], y), free)
            states = [x, *(s.detach() - rule.rate * slope for s, slope in zip(free, slopes, strict=True))]
        parameters = list(net.parameters())
        slopes = torch.autograd.grad(energy(net, states, y) / len(x), parameters)
        expected = dict(zip(parameters, slopes, strict=True))
        for part in found:
            block = net[int(part.partition(".")[2])]
            whole = torch.cat([expected[p].flatten() for p in block.parameters()])
            yield Check(f"gradient of {part} of {name}", apart(found[part], whole), 1e-10)


def energy(net: nn.Sequential, states: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    """Of all samples together."""
    guesses = [block(s) for block, s in zip(net, states, strict=True)]
    total = nn.functional.cross_entropy(guesses[-1], y, reduction="sum")
    for state, guess in zip(states[1:], guesses, strict=False):
        total = total + 0.5 * (state - guess).square().sum()
    return total
