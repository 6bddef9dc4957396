"""NudgedPredictiveCoding against autograd of the whole energy, and its order of approach to backprop."""

import pytest
import torch

from altprop.errors import UsageError
from altprop.rules.energy.nudged_predictive_coding import SIGNS, NudgedPredictiveCoding
from altprop.rules.energy.segments import segments
from energy_nets import NETS, backprop, batch, by_whole_energy, cost, distance, gradients_of, mlp, one_hot, sample, sgd


@pytest.mark.parametrize("order", ["jacobi", "gauss-seidel"])
@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
@pytest.mark.parametrize("nudge", SIGNS)
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("name", ["tanh", "gelu", "conv", "output only"])
def test_gradients_equal_autograd_of_each_phase_alone(
    name: str, clamp: bool, nudge: str, output: str, order: str
) -> None:
    net = NETS[name]()
    x, y = sample(name)
    mu = net(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(cost(mu, one_hot(y), output).sum(), mu)
    expected = [torch.zeros_like(p) for p in net.parameters()]
    for sign in SIGNS[nudge]:
        phase = (one_hot(y), 9, 0.02, order, output)
        if clamp:
            phase = ((mu - sign * 0.3 * slope).detach(), 9, 0.02, order, "squared")
        _, gradients = by_whole_energy(segments(net, "after"), x, *phase, beta=1.0 if clamp else sign * 0.3)
        for total, gradient in zip(expected, gradients, strict=True):
            total += sign / 0.3 * gradient / len(SIGNS[nudge])
    rule = NudgedPredictiveCoding(
        net, nudge=nudge, beta=0.3, clamp=clamp, sweeps=9, rate=0.02, order=order, output=output, optimizer=sgd
    )
    for found, gradient in zip(gradients_of(net, rule, x, y), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("nudge", "power"), [("positive", 1), ("negative", 1), ("centred", 2)])
@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
def test_its_error_to_backprop_falls_as_beta_and_centred_as_its_square(nudge: str, power: int, output: str) -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y), output)
    errors = []
    for beta in (1e-2, 1e-3):
        rule = NudgedPredictiveCoding(net, nudge=nudge, beta=beta, sweeps=150, rate=0.4, output=output, optimizer=sgd)
        errors.append(distance(gradients_of(net, rule, x, y), expected))
    assert 0.8 < (errors[0] / errors[1]) / 10**power < 1.25
    assert errors[1] < (1e-4 if power == 2 else 0.01)


def test_the_input_layer_is_asked_once_for_both_phases() -> None:
    net = mlp([6, 9, 8])
    calls: list[int] = []
    rule, relu = NudgedPredictiveCoding(net), net[0].activation.forward
    net[0].activation.forward = lambda z: calls.append(1) or relu(z)
    rule.step(*batch((5, 6)))
    assert len(calls) == 1


def test_what_it_refuses() -> None:
    for options in ({"nudge": "random"}, {"beta": 0.0}, {"sweeps": 0}, {"order": "random"}, {"states": "between"}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            NudgedPredictiveCoding(mlp([6, 8]), **options)
