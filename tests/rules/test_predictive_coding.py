"""PredictiveCoding against independent computations: whole-energy autograd, a closed form, backprop."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.predictive_coding import (
    Chain,
    PredictiveCoding,
    accept,
    feed_forward,
    output_error,
    predict,
    propose,
)

ORDERS = ["jacobi", "gauss-seidel"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(widths: list[int], classes: int = 3, **options: object) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, generator=generator(), **options).double()


def batch(shape: tuple[int, ...], classes: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    return x, torch.randint(classes, shape[:1], generator=generator(2))


def one_hot(y: Tensor, classes: int = 3) -> Tensor:
    return functional.one_hot(y, classes).double()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


@torch.no_grad()
def relax(
    net: nn.Sequential, x: Tensor, target: Tensor, sweeps: int, rate: float, order: str, output: str
) -> tuple[Chain, Tensor]:
    """As `learn` does it, without the learning."""
    now = feed_forward(list(net), x, target, output)
    rates = torch.full_like(now.energy, rate)
    for sweep in range(1, sweeps + 1):
        lowest = 1 if order == "gauss-seidel" else max(1, len(net) - sweep)
        now, rates = accept(now, propose(now, rates, order, lowest), rates)
    return now, rates


def gradients(net: nn.Sequential, chain: Chain) -> list[Tensor | None]:
    net.zero_grad()
    with torch.no_grad():
        for prediction, error in zip(chain.predictions, chain.errors, strict=True):
            if error is not None and any(p.requires_grad for p in prediction.block.parameters()):
                prediction.fill_gradients(error)
    found = [p.grad for p in net.parameters()]
    net.zero_grad()
    return found


def whole_energy(net: nn.Sequential, states: list[Tensor], target: Tensor, output: str) -> Tensor:
    """One sample's energy each, from the input and all hidden states, by the net's own modules."""
    energy = torch.zeros(len(target), dtype=target.dtype)
    for i, block in enumerate(net):
        mu = block(states[i])
        if i + 1 < len(net):
            energy = energy + 0.5 * (states[i + 1] - mu).square().flatten(1).sum(1)
        elif output == "squared":
            energy = energy + 0.5 * (target - mu).square().sum(1)
        else:
            energy = energy + functional.cross_entropy(mu, target, reduction="none")
    return energy


def by_whole_energy(
    net: nn.Sequential, x: Tensor, target: Tensor, sweeps: int, rate: float, order: str, output: str
) -> tuple[list[Tensor], list[Tensor]]:
    """States and weight gradients by autograd of the whole energy: no cache, no skipping, no products by hand."""
    states = [x]
    with torch.no_grad():
        for block in list(net)[:-1]:
            states.append(block(states[-1]))
    hidden = range(1, len(net))
    for _ in range(sweeps if len(net) > 1 else 0):
        for group in [hidden] if order == "jacobi" else [[i] for i in reversed(hidden)]:
            states = [s.detach().requires_grad_(i > 0) for i, s in enumerate(states)]
            slopes = torch.autograd.grad(whole_energy(net, states, target, output).sum(), [states[i] for i in group])
            for i, slope in zip(group, slopes, strict=True):
                states[i] = states[i].detach() - rate * slope
    states = [s.detach() for s in states]
    energy = whole_energy(net, states, target, output).mean()
    return states, list(torch.autograd.grad(energy, list(net.parameters()), allow_unused=True))


def backprop(net: nn.Sequential, x: Tensor, target: Tensor) -> list[Tensor]:
    loss = 0.5 * (target - net(x)).square().sum(1).mean()
    return list(torch.autograd.grad(loss, list(net.parameters())))


def layer(inputs: int, outputs: int) -> nn.Linear:
    return nets.linear(inputs, outputs, "lecun", generator(inputs))


NETS = {
    "relu": lambda: mlp([6, 9, 8, 7]),
    "tanh": lambda: mlp([6, 9, 8, 7], act="tanh"),
    "sigmoid": lambda: mlp([6, 9, 8], act="sigmoid"),
    "leaky-relu": lambda: mlp([6, 9, 8], act="leaky-relu"),
    "gelu": lambda: mlp([6, 9, 8], act="gelu"),
    "norm": lambda: mlp([6, 9, 8], norm=True),
    "no bias": lambda: mlp([6, 9, 8], bias=False),
    "output only": lambda: mlp([6]),
    "weightless": lambda: nn.Sequential(
        layer(6, 8), nn.Tanh(), nn.Unflatten(1, (2, 4)), nn.Flatten(), layer(8, 7), layer(7, 3)
    ).double(),
    "conv": lambda: nets.conv((1, 8, 8), [2, 3], classes=3, generator=generator()).double(),
}


def sample(name: str) -> tuple[Tensor, Tensor]:
    return batch((5, 1, 8, 8) if name == "conv" else (5, 6))


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NETS)
def test_states_and_gradients_equal_autograd_of_the_whole_energy(name: str, order: str, output: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    target = one_hot(y)
    states, expected = by_whole_energy(net, x, target, 9, 0.02, order, output)
    chain, rates = relax(net, x, target, 9, 0.02, order, output)
    assert bool((rates == 0.02).all())  # nothing was rejected: the reference never does
    for prediction, state in zip(chain.predictions, states, strict=True):
        torch.testing.assert_close(prediction.x.detach(), state, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(chain.energy, whole_energy(net, states, target, output).detach(), rtol=1e-12, atol=0)
    for found, gradient in zip(gradients(net, chain), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-13)


def test_learn_leaves_the_gradient_of_the_mean_energy_to_the_optimizer() -> None:
    net = mlp([6, 9, 8])
    x, y = batch((5, 6))
    _, expected = by_whole_energy(net, x, one_hot(y), 8, 0.1, "jacobi", "cross-entropy")
    before = [p.detach().clone() for p in net.parameters()]
    metrics = PredictiveCoding(net, optimizer=sgd).step(x, y)
    for old, new, gradient in zip(before, net.parameters(), expected, strict=True):
        torch.testing.assert_close(old - new, gradient, rtol=1e-10, atol=1e-13)
    assert metrics["rate"] == 0.1
    assert metrics["energy"] < metrics["loss"]


def linear_net() -> nn.Sequential:
    return nn.Sequential(layer(6, 9), layer(9, 8), layer(8, 3)).double()


@pytest.mark.parametrize("order", ORDERS)
def test_linear_net_relaxes_to_the_closed_form(order: str) -> None:
    """E* = 1/2 r^T S^-1 r with S = I + sum_l P_l P_l^T, P_l = W_L ... W_l; its gradient is the local one."""
    net = linear_net()
    x, y = batch((5, 6))
    chain, _ = relax(net, x, one_hot(y), 300, 0.3, order, "squared")
    above = torch.eye(3, dtype=torch.float64)
    spread = above
    for block in reversed(list(net)[1:]):
        above = above @ nets.affine(block).weight
        spread = spread + above @ above.T
    residual = one_hot(y) - net(x)
    energy = 0.5 * (residual * torch.linalg.solve(spread, residual.T).T).sum(1)
    torch.testing.assert_close(chain.energy, energy.detach(), rtol=1e-10, atol=0)
    expected = torch.autograd.grad(energy.mean(), list(net.parameters()))
    for found, gradient in zip(gradients(net, chain), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-10)


def test_both_orders_reach_the_same_fixed_point() -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    jacobi, seidel = (relax(net, x, one_hot(y), 250, 0.3, order, "cross-entropy")[0] for order in ORDERS)
    torch.testing.assert_close(jacobi.energy, seidel.energy, rtol=1e-12, atol=0)
    for a, b in zip(jacobi.predictions, seidel.predictions, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-8)


def test_z_il_is_backprop() -> None:
    """Song et al. 2020: rate 1, and block L - t learns at sweep t, when the error has just arrived there."""
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))
    with torch.no_grad():
        now = feed_forward(list(net), x, one_hot(y), "squared")
        for sweep in range(len(net)):
            block = len(net) - 1 - sweep
            now.predictions[block].fill_gradients(now.errors[block])
            if block > 0:
                now = propose(now, torch.ones_like(now.energy), "jacobi", block)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


def test_one_small_gauss_seidel_sweep_is_backprop_to_first_order() -> None:
    """Block L - k's error is rate^k times backprop's, up to O(rate)."""
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))
    worst = {}
    for rate in (1e-3, 1e-4):
        chain, _ = relax(net, x, one_hot(y), 1, rate, "gauss-seidel", "squared")
        found = gradients(net, chain)
        powers = [len(net) - 1 - i for i in range(len(net)) for _ in range(2)]
        worst[rate] = max(
            float((f / rate**k - e).norm() / e.norm()) for f, e, k in zip(found, expected, powers, strict=True)
        )
    assert worst[1e-4] < 1e-2
    assert 8 < worst[1e-3] / worst[1e-4] < 12


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["relu", "gelu", "weightless"])
def test_energy_never_rises_however_large_the_rate(name: str, order: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    with torch.no_grad():
        now = feed_forward(list(net), x, one_hot(y), "squared")
        start, rates = now.energy, torch.full_like(now.energy, 50.0)
        for sweep in range(1, 31):
            proposed = propose(now, rates, order, 1 if order == "gauss-seidel" else max(1, len(net) - sweep))
            after, new_rates = accept(now, proposed, rates)
            assert bool((after.energy <= now.energy * (1 + 1e-12)).all())
            assert bool(((new_rates == rates) | (new_rates == rates / 2)).all())
            states = [p.x.detach() for p in after.predictions]
            torch.testing.assert_close(after.energy, whole_energy(net, states, one_hot(y), "squared").detach())
            for prediction in after.predictions:  # a sample that went back has its old prediction too
                torch.testing.assert_close(prediction.mu, prediction.block(prediction.x).detach())
            for i, error in enumerate(after.errors[:-1]):
                if error is not None:
                    torch.testing.assert_close(error, states[i + 1] - after.predictions[i].mu)
            now, rates = after, new_rates
    assert bool((now.energy < 0.9 * start).all())
    assert bool((rates < 50.0).all())


def test_a_sample_relaxes_as_if_it_were_alone() -> None:
    """One wild sample, whose energy rises, changes nothing for the others."""
    net = mlp([6, 9, 8])
    x, y = batch((5, 6))
    x[2] *= 1000.0
    together, rates = relax(net, x, one_hot(y), 8, 0.4, "jacobi", "squared")
    assert len(set(rates.tolist())) > 1
    for i in range(5):
        alone, rate = relax(net, x[i : i + 1], one_hot(y[i : i + 1]), 8, 0.4, "jacobi", "squared")
        assert rate == rates[i]
        for a, b in zip(together.predictions, alone.predictions, strict=True):
            torch.testing.assert_close(a.x[i : i + 1], b.x, rtol=1e-10, atol=1e-10)


def test_blocks_that_the_wave_has_not_reached_stay_as_they_are() -> None:
    net = mlp([6, 9, 8, 7])
    x, y = batch((5, 6))
    before = copy.deepcopy(net)
    PredictiveCoding(net, sweeps=2).step(x, y)
    moved = [not torch.equal(nets.affine(a).weight, nets.affine(b).weight) for a, b in zip(net, before, strict=True)]
    assert moved == [False, True, True, True]
    _, expected = by_whole_energy(before, x, one_hot(y), 2, 0.1, "jacobi", "squared")
    assert not expected[0].any() and expected[2].any()  # whole-energy autograd finds an exact zero there


@pytest.mark.parametrize("order", ORDERS)
def test_hand_written_products_equal_autograd_through_training(order: str) -> None:
    by_hand = mlp([6, 9, 8, 7])
    generic = nn.Sequential(*(nn.Sequential(b.affine, b.activation) for b in list(by_hand)[:-1]), by_hand[-1])
    generic = copy.deepcopy(generic)
    x, y = batch((5, 6))
    rules = [PredictiveCoding(net, order=order, rate=1.5) for net in (by_hand, generic)]
    for _ in range(5):
        first, second = (rule.step(x, y) for rule in rules)
        assert first["rate"] < 1.5  # samples went back, in both
        torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    for a, b in zip(by_hand.parameters(), generic.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_output_error_is_the_slope_of_the_output_energy() -> None:
    mu, y = batch((5, 3))
    mu.requires_grad_()
    for output in ("squared", "cross-entropy"):
        error, energy = output_error(mu, one_hot(y), output)
        torch.testing.assert_close(error, -torch.autograd.grad(energy.sum(), mu)[0])


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_operations_equal_the_hand_count(order: str, generic: bool) -> None:
    """Per sample: each weight once forward and once for its gradient; in a sweep, twice above each state that moves.

    The first block is never asked again, and with "jacobi" the wave needs L - 1 sweeps to get everywhere.
    """
    net = mlp([20, 16, 12, 8], classes=4)
    if generic:
        net = nn.Sequential(*(nn.Sequential(b.affine, b.activation) for b in list(net)[:-1]), net[-1])
    first, second, third, last = 20 * 16, 16 * 12, 12 * 8, 8 * 4
    wave = [last, last + third] if order == "jacobi" else [last + third + second] * 2
    count = 2 * (first + second + third + last) + 2 * (sum(wave) + 6 * (last + third + second))
    rule = PredictiveCoding(net, order=order)
    x, y = batch((7, 20), 4)
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        metrics = rule.step(x, y)
    assert metrics["rate"] == pytest.approx(0.1)  # nothing had to be predicted again
    assert trace.operations == 2 * 7 * count


def test_a_frozen_block_passes_the_error_on() -> None:
    net = mlp([6, 9, 8, 7])
    net[1].requires_grad_(False)
    frozen, first = nets.affine(net[1]).weight.clone(), nets.affine(net[0]).weight.clone()
    rule = PredictiveCoding(net)
    assert "blocks.1" not in rule.optimizers
    rule.step(*batch((5, 6)))
    assert torch.equal(frozen, nets.affine(net[1]).weight)
    assert not torch.equal(first, nets.affine(net[0]).weight)


def test_regression_learns_a_linear_map() -> None:
    x, _ = batch((64, 6))
    y = x[:, :2] - x[:, 2:4]
    net = mlp([6, 32, 32], classes=2, act="tanh")
    rule = PredictiveCoding(net, Problem((6,), 2, "regression"), sweeps=4)
    losses = [rule.step(x, y)["loss"] for _ in range(200)]
    assert losses[-1] < 0.05 * losses[0]


def test_deep_first_blocks_are_not_frozen_by_the_optimizer() -> None:
    """Their gradients are tiny; an eps of 1e-8 would leave them nearly where they were."""
    net = nets.mlp([6] + [16] * 6, classes=3, act="tanh", init="lecun", generator=generator())
    first = nets.affine(net[0]).weight
    before = first.detach().clone()
    x, y = batch((32, 6))
    PredictiveCoding(net, sweeps=6).step(x.float(), y)
    moved = (first - before).abs()
    assert moved.median() > 0.9e-3  # Adam's rate


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().round()


def test_what_it_refuses() -> None:
    problem = Problem((6,), 3)
    cases = {
        "1 \\(BatchNorm1d\\)": nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        "0.1 \\(Dropout\\)": nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)), nn.Linear(8, 3)),
        "output block with 3": nets.mlp([6, 8]),
    }
    for words, net in cases.items():
        with pytest.raises(UsageError, match=words):
            PredictiveCoding(net, problem)
    for options in ({"sweeps": 0}, {"rate": 0.0}, {"order": "red-black"}, {"output": "hinge"}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            PredictiveCoding(nets.mlp([6, 8], classes=3), **options)
    with pytest.raises(UsageError, match="regression"):
        PredictiveCoding(nets.mlp([6, 8], classes=3), Problem((6,), 3, "regression"), output="cross-entropy")
    opaque = nn.Sequential(layer(6, 8), Rounded(), layer(8, 3)).double()
    with pytest.raises(UsageError, match=r"Rounded.*no derivative"):
        PredictiveCoding(opaque).step(*batch((5, 6)))


def test_a_clamped_input_is_never_pulled_back_to() -> None:
    x, _ = batch((5, 6))
    assert not predict(mlp([6, 8], act="gelu")[0], x, clamped=True).x.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("block", [nn.Flatten(), nn.Linear(6, 6).double()])
def test_pulling_an_error_back_leaves_it_as_it_is(block: nn.Module) -> None:
    """What autograd gives back for a block that only reshapes is a view of the error."""
    x, _ = batch((5, 6))
    error, below = torch.ones_like(x), torch.full_like(x, 2.0)
    predict(block, x).pull_back(error, below)
    assert bool((error == 1.0).all()) and bool((below == 2.0).all())
