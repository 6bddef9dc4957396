"""IncrementalPredictiveCoding against an unrolled loop over autograd of the whole energy."""

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rules.energy.incremental_predictive_coding import IncrementalPredictiveCoding
from altprop.rules.energy.segments import segments
from energy_nets import NETS, batch, mlp, one_hot, sample, whole_energy

RATE = 1e-6


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE)


def by_autograd(net: nn.Sequential, cut: str, x: torch.Tensor, y: torch.Tensor, sweeps: int, momentum: float) -> None:
    """States and weights from one evaluation of the energy, sweep by sweep."""
    blocks = segments(net, cut)
    states = [x]
    with torch.no_grad():
        for block in blocks[:-1]:
            states.append(block(states[-1]))
    velocities = [torch.zeros_like(s) for s in states]
    for _ in range(sweeps):
        states = [s.detach().requires_grad_(i > 0) for i, s in enumerate(states)]
        parameters = list(net.parameters())
        total = whole_energy(blocks, states, one_hot(y), "cross-entropy").sum()
        slopes = torch.autograd.grad(total, [*states[1:], *parameters], allow_unused=True)
        hidden, weights = slopes[: len(states) - 1], slopes[len(states) - 1 :]
        for i, slope in enumerate(hidden, 1):
            velocities[i] = momentum * velocities[i] - slope
            states[i] = states[i].detach() + 0.02 * velocities[i]
        with torch.no_grad():
            for p, slope in zip(parameters, weights, strict=True):
                p -= RATE * slope / len(y)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("cut", ["after", "before"])
@pytest.mark.parametrize("name", ["tanh", "gelu", "weightless", "residual", "conv", "output only"])
def test_a_step_equals_autograd_sweep_by_sweep(name: str, cut: str, momentum: float) -> None:
    ours, theirs = NETS[name](), NETS[name]()
    x, y = sample(name)
    rule = IncrementalPredictiveCoding(ours, rate=0.02, momentum=momentum, states=cut, optimizer=sgd)
    for _ in range(3):
        metrics = rule.step(x, y)
        by_autograd(theirs, cut, x, y, 8, momentum)
    assert name == "output only" or metrics["rate"] == pytest.approx(0.02)  # nothing went back
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_blocks_learn_as_the_error_arrives_and_then_in_every_sweep() -> None:
    net = mlp([6, 9, 8, 7])
    steps = {part: 0 for part in (f"blocks.{i}" for i in range(4))}
    rule = IncrementalPredictiveCoding(net, sweeps=6, optimizer=sgd)
    for part, optimizer in rule.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, part=part: steps.__setitem__(part, steps[part] + 1))
    rule.step(*batch((5, 6)))
    assert list(steps.values()) == [3, 4, 5, 6]


@pytest.mark.parametrize("rate", [0.5, 5.0, 50.0])
def test_it_does_not_diverge_at_rates_that_fresh_weights_do_not_bear(rate: float) -> None:
    net = nets.mlp([6, 16, 16, 16], classes=3, act="leaky-relu")
    x, y = batch((64, 6))
    rule = IncrementalPredictiveCoding(net, rate=rate)
    losses = [float(rule.step(x.float(), y)["loss"]) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_what_it_refuses() -> None:
    net = nets.mlp([6, 8], classes=3)
    for options in ({"sweeps": 0}, {"rate": -1.0}, {"momentum": 1.5}, {"output": "hinge"}, {"states": "between"}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            IncrementalPredictiveCoding(net, **options)
