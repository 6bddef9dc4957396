"""ErrorPredictiveCoding against autograd of the energy by its errors, and against the state form at equilibrium."""

import pytest
import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rules.energy.error_predictive_coding import ErrorPredictiveCoding
from altprop.rules.energy.predictive_coding import PredictiveCoding
from altprop.rules.energy.segments import segments
from energy_nets import NETS, backprop, batch, cost, distance, gradients_of, mlp, one_hot, sample, sgd, whole_energy


def by_autograd(
    blocks: list[nn.Module], x: Tensor, target: Tensor, sweeps: int, rate: float, output: str, momentum: float
) -> list[Tensor]:
    """The local weight gradients after relaxing the errors by autograd through the whole net."""

    def states(errors: list[Tensor]) -> list[Tensor]:
        found = [x]
        for block, error in zip(blocks, errors, strict=False):
            found.append(block(found[-1]) + error)
        return found

    with torch.no_grad():
        errors = [
            torch.zeros_like(block(s)) for block, s in zip(blocks, states([0.0] * (len(blocks) - 1)), strict=True)
        ]
    errors = errors[:-1]
    velocities = [torch.zeros_like(e) for e in errors]
    for _ in range(sweeps if errors else 0):
        errors = [e.detach().requires_grad_() for e in errors]
        energy = sum(
            (0.5 * e.square().sum() for e in errors), cost(blocks[-1](states(errors)[-1]), target, output).sum()
        )
        for i, slope in enumerate(torch.autograd.grad(energy, errors)):
            velocities[i] = momentum * velocities[i] - slope
            errors[i] = errors[i].detach() + rate * velocities[i]
    constants = [s.detach() for s in states(errors)]
    local = whole_energy(blocks, constants, target, output).mean()
    return list(torch.autograd.grad(local, list(nn.ModuleList(blocks).parameters()), allow_unused=True))


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
@pytest.mark.parametrize("cut", ["after", "before"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_equal_autograd_by_the_errors(name: str, cut: str, output: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    for momentum in (0.0, 0.5):
        expected = by_autograd(segments(net, cut), x, one_hot(y), 6, 0.005, output, momentum)
        rule = ErrorPredictiveCoding(
            net, sweeps=6, rate=0.005, momentum=momentum, states=cut, output=output, optimizer=sgd
        )
        found = gradients_of(net, rule, x, y)
        for name_, a, b in zip(dict(net.named_parameters()), found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name_)


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
def test_equilibrium_gradient_is_that_of_the_state_form(output: str) -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    settled = {"sweeps": 250, "rate": 0.3, "output": output, "optimizer": sgd}
    by_errors = gradients_of(net, ErrorPredictiveCoding(net, **settled), x, y)
    by_states = gradients_of(net, PredictiveCoding(net, **settled), x, y)
    assert distance(by_errors, by_states) < 1e-6
    assert distance(by_errors, backprop(net, x, one_hot(y), output)) > 0.05  # and it is not backprop's


def test_one_small_sweep_gives_hidden_blocks_rate_times_backprop() -> None:
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))
    errors = []
    for rate in (1e-3, 1e-4):
        rule = ErrorPredictiveCoding(net, sweeps=1, rate=rate, output="squared", optimizer=sgd)
        found = gradients_of(net, rule, x, y)
        scaled = [f / rate for f in found[:-2]] + found[-2:]  # the output block's own gradient is whole
        errors.append(distance(scaled, expected))
    assert errors[1] < 1e-3 and 8 < errors[0] / errors[1] < 12


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_energy_never_rises_however_large_the_rate(momentum: float) -> None:
    net = mlp([6, 9, 8, 7])
    x, y = batch((5, 6))
    still = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    energies = []
    for sweeps in range(1, 20):
        metrics = ErrorPredictiveCoding(net, sweeps=sweeps, rate=20.0, momentum=momentum, **still).step(x, y)
        energies.append(float(metrics["energy"]))
    assert all(b <= a * (1 + 1e-12) for a, b in zip([float(metrics["loss"]), *energies], energies, strict=False))
    assert energies[-1] < 0.9 * float(metrics["loss"]) and float(metrics["rate"]) < 20.0


def test_what_it_refuses() -> None:
    for options in ({"sweeps": 0}, {"rate": 0.0}, {"momentum": 1.0}, {"output": "hinge"}, {"states": "between"}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            ErrorPredictiveCoding(mlp([6, 8]), **options)
