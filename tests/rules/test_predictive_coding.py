"""PredictiveCoding against independent computations: whole-energy autograd, a closed form, backprop."""

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.energy.chain import ORDERS, Chain, Energy, accept, feed_forward, from_zero, propose
from altprop.rules.energy.prediction import predict
from altprop.rules.energy.predictive_coding import PredictiveCoding
from altprop.rules.energy.segments import segments
from altprop.rules.energy.stability import stable_rate
from energy_nets import (
    NETS,
    backprop,
    batch,
    by_whole_energy,
    distance,
    generator,
    gradients_of,
    layer,
    mlp,
    one_hot,
    sample,
    sgd,
    whole_energy,
)


@torch.no_grad()
def relax(
    blocks: list[nn.Module],
    x: Tensor,
    energy: Energy,
    sweeps: int,
    rate: float,
    order: str = "jacobi",
    momentum: float = 0.0,
    zero: bool = False,
) -> tuple[Chain, Tensor]:
    """As `learn` does it, without the learning."""
    now = (from_zero if zero else feed_forward)(blocks, x, energy)
    rates = torch.full_like(now.energy, rate)
    for _ in range(sweeps):
        now, rates = accept(now, propose(now, energy, rates, order, momentum), rates)
    return now, rates


def gradients(blocks: list[nn.Module], chain: Chain) -> list[Tensor | None]:
    parameters = list(nn.ModuleList(blocks).parameters())
    with torch.no_grad():
        for prediction, error in zip(chain.predictions, chain.errors, strict=True):
            if error is not None:
                prediction.fill_gradients(error)
    found = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return found


def same_as_autograd(
    blocks: list[nn.Module], x: Tensor, energy: Energy, order: str = "jacobi", momentum: float = 0.0, zero: bool = False
) -> None:
    """Nine sweeps, and the weight gradients, equal autograd of the whole energy."""
    weights = {"beta": energy.beta, "precisions": energy.precisions}
    states, expected = by_whole_energy(
        blocks, x, energy.target, 9, 0.02, order, energy.output, momentum, zero, **weights
    )
    chain, rates = relax(blocks, x, energy, 9, 0.02, order, momentum, zero)
    assert bool((rates == 0.02).all())  # nothing was rejected: the reference never does
    for prediction, state in zip(chain.predictions, states, strict=True):
        torch.testing.assert_close(prediction.x.detach(), state, rtol=1e-12, atol=1e-13)
    total = whole_energy(blocks, states, energy.target, energy.output, **weights).detach()
    torch.testing.assert_close(chain.energy, total, rtol=1e-12, atol=1e-14)
    for found, gradient in zip(gradients(blocks, chain), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("states", ["after", "before"])
@pytest.mark.parametrize("name", NETS)
def test_states_and_gradients_equal_autograd_of_the_whole_energy(
    name: str, states: str, order: str, output: str
) -> None:
    x, y = sample(name)
    same_as_autograd(segments(NETS[name](), states), x, Energy(one_hot(y), output), order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["tanh", "gelu", "weightless", "residual"])
def test_so_do_momentum_beta_precisions_and_a_start_from_zero(name: str, order: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    precisions = [0.5 + 0.3 * i for i in range(len(net) - 1)]
    energy = Energy(one_hot(y), "cross-entropy", 0.7, precisions)
    for states in ("after", "before"):
        same_as_autograd(segments(net, states), x, energy, order, momentum=0.6, zero=True)
        same_as_autograd(segments(net, states), x, energy, order, momentum=0.6)


@pytest.mark.parametrize("name", ["relu", "norm", "weightless", "conv"])
def test_a_net_cut_before_its_activations_is_the_same_net(name: str) -> None:
    net = NETS[name]()
    x, _ = sample(name)
    cut = segments(net, "before")
    assert len(cut) == len(net)
    assert torch.equal(nn.Sequential(*cut)(x), net(x))
    assert {id(p) for p in nn.ModuleList(cut).parameters()} == {id(p) for p in net.parameters()}


def test_learn_leaves_the_gradient_of_the_mean_energy_to_the_optimizer() -> None:
    net = mlp([6, 9, 8])
    x, y = batch((5, 6))
    _, expected = by_whole_energy(list(net), x, one_hot(y), 8, 0.1, "jacobi", "cross-entropy")
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
    chain, _ = relax(list(net), x, Energy(one_hot(y)), 300, 0.3, order)
    above = torch.eye(3, dtype=torch.float64)
    spread = above
    for block in reversed(list(net)[1:]):
        above = above @ nets.affine(block).weight
        spread = spread + above @ above.T
    residual = one_hot(y) - net(x)
    energy = 0.5 * (residual * torch.linalg.solve(spread, residual.T).T).sum(1)
    torch.testing.assert_close(chain.energy, energy.detach(), rtol=1e-10, atol=0)
    expected = torch.autograd.grad(energy.mean(), list(net.parameters()))
    for found, gradient in zip(gradients(list(net), chain), expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-8, atol=1e-10)


def test_all_orders_reach_the_same_fixed_point() -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    energy = Energy(one_hot(y), "cross-entropy")
    first, *others = (relax(list(net), x, energy, 250, 0.3, order)[0] for order in ORDERS)
    for other in others:
        torch.testing.assert_close(first.energy, other.energy, rtol=1e-12, atol=0)
        for a, b in zip(first.predictions, other.predictions, strict=True):
            torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-8)


def test_one_small_gauss_seidel_sweep_is_backprop_to_first_order() -> None:
    """Block L - k's error is rate^k times backprop's, up to O(rate)."""
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))
    worst = {}
    for rate in (1e-3, 1e-4):
        chain, _ = relax(list(net), x, Energy(one_hot(y)), 1, rate, "gauss-seidel")
        found = gradients(list(net), chain)
        powers = [len(net) - 1 - i for i in range(len(net)) for _ in range(2)]
        worst[rate] = max(
            float((f / rate**k - e).norm() / e.norm()) for f, e, k in zip(found, expected, powers, strict=True)
        )
    assert worst[1e-4] < 1e-2
    assert 8 < worst[1e-3] / worst[1e-4] < 12


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("name", ["relu", "gelu", "weightless"])
def test_energy_never_rises_however_large_the_rate(name: str, momentum: float, order: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    energy = Energy(one_hot(y))
    with torch.no_grad():
        now = feed_forward(list(net), x, energy)
        start, rates = now.energy, torch.full_like(now.energy, 50.0)
        for _ in range(30):
            after, new_rates = accept(now, propose(now, energy, rates, order, momentum), rates)
            assert bool((after.energy <= now.energy * (1 + 1e-12)).all())
            assert bool(((new_rates == rates) | (new_rates == rates / 2)).all())
            states = [p.x.detach() for p in after.predictions]
            torch.testing.assert_close(after.energy, whole_energy(list(net), states, one_hot(y), "squared").detach())
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
    together, rates = relax(list(net), x, Energy(one_hot(y)), 8, 0.4, momentum=0.5)
    assert len(set(rates.tolist())) > 1
    for i in range(5):
        alone, rate = relax(list(net), x[i : i + 1], Energy(one_hot(y[i : i + 1])), 8, 0.4, momentum=0.5)
        assert rate == rates[i]
        for a, b in zip(together.predictions, alone.predictions, strict=True):
            torch.testing.assert_close(a.x[i : i + 1], b.x, rtol=1e-10, atol=1e-10)


def test_blocks_that_the_wave_has_not_reached_stay_as_they_are() -> None:
    net = mlp([6, 9, 8, 7])
    x, y = batch((5, 6))
    before = copy.deepcopy(net)
    with pytest.warns(UserWarning, match=r"does not reach the first 1 of 4 blocks.*exactly zero"):
        rule = PredictiveCoding(net, sweeps=2)
    rule.step(x, y)
    moved = [not torch.equal(nets.affine(a).weight, nets.affine(b).weight) for a, b in zip(net, before, strict=True)]
    assert moved == [False, True, True, True]
    _, expected = by_whole_energy(list(before), x, one_hot(y), 2, 0.1)
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
        error, energy = Energy(one_hot(y), output, beta=0.3).at_output(mu)
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
    everything = [last + third + second] * 2
    wave = {"jacobi": [last, last + third], "red-black": [last + third, everything[0]]}.get(order, everything)
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
    for options in (
        {"sweeps": 0},
        {"rate": 0.0},
        {"order": "random"},
        {"output": "hinge"},
        {"momentum": 1.0},
        {"states": "between"},
        {"start": "random"},
        {"beta": 0.0},
        {"precision_rate": -1.0},
    ):
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


def test_without_a_monitor_a_rate_above_the_stable_bound_is_refused_and_the_bound_is_said() -> None:
    x, y = batch((5, 6))
    net = mlp([6, 9, 8])
    with torch.no_grad():
        energy = Energy(one_hot(y), "cross-entropy")
        bound = stable_rate(feed_forward(list(net), x, energy), energy)
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(UsageError, match=f"below a rate of {bound:.2g} here"):
        PredictiveCoding(net, rate=1.9, sweeps=60, monitor=False).step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(UsageError, match="any net at a rate of 2"):
        PredictiveCoding(net, rate=2.0, monitor=False)
    plain, watched = (gradients_of(net, PredictiveCoding(net, monitor=m, optimizer=sgd), x, y) for m in (False, True))
    assert distance(plain, watched) == 0.0


@pytest.mark.parametrize("name", ["no bias", "tanh", "conv"])
def test_the_stable_bound_is_two_over_the_largest_eigenvalue_of_the_hessian(name: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    x, target = x[:1], one_hot(y)[:1]
    blocks = list(net)
    with torch.no_grad():
        chain = feed_forward(blocks, x, Energy(target))
    states = [p.x.detach() for p in chain.predictions[1:]]
    sizes = [s.numel() for s in states]

    def energy(flat: Tensor) -> Tensor:
        parts = [part.view_as(s) for part, s in zip(flat.split(sizes), states, strict=True)]
        return whole_energy(blocks, [x, *parts], target, "squared").sum()

    hessian = torch.autograd.functional.hessian(energy, torch.cat([s.flatten() for s in states]))
    expected = 2 / float(torch.linalg.eigvalsh(hessian).abs().max())
    assert stable_rate(chain, Energy(target), iterations=100) == pytest.approx(expected, rel=1e-2)


def test_gradients_over_beta_come_to_backprop_as_beta_falls() -> None:
    """At equilibrium, the error to backprop is O(beta)."""
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))
    errors = []
    for beta in (1e-2, 1e-3):
        rule = PredictiveCoding(net, sweeps=100, rate=0.3, beta=beta, output="squared", optimizer=sgd)
        errors.append(distance(gradients_of(net, rule, x, y), expected))
    assert errors[1] < 1e-2 and 8 < errors[0] / errors[1] < 12


def test_precisions_come_to_one_over_the_mean_square_of_their_errors() -> None:
    net = mlp([6, 9, 8], act="tanh")
    x, y = batch((64, 6))
    still = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    rule = PredictiveCoding(net, rate=0.3, sweeps=20, output="squared", precision_rate=0.2, **still).double()
    assert bool((rule.precisions == 1.0).all())
    first = rule.precisions.clone()
    rule.step(x, y)
    chain, _ = relax(list(net), x, Energy(one_hot(y), precisions=first.tolist()), 20, 0.3)
    squares = torch.stack([e.square().mean() for e in chain.errors[:-1]])
    torch.testing.assert_close(rule.precisions.log(), 0.2 * (1 - squares), rtol=1e-10, atol=1e-12)
    for _ in range(60):
        rule.step(x, y)
    assert float(rule.precisions.log().abs().max()) <= math.log(100.0) + 1e-12
    assert bool((rule.precisions > 1.0).all())  # errors of these states are small


def test_residual_falls_as_states_settle() -> None:
    net = mlp([6, 9, 8], act="tanh", init="uniform")
    x, y = batch((5, 6))
    found = []
    for sweeps in (8, 32, 128):
        rule = PredictiveCoding(net, sweeps=sweeps, rate=0.3, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        found.append(float(rule.step(x, y)["residual"]))
    assert found[0] > 0.05 and found[1] < 0.1 * found[0] and found[2] < 1e-4


def test_default_sweeps_reach_the_first_block_of_deep_nets() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PredictiveCoding(nets.mlp([6] * 20, classes=3)).sweeps == 19
        assert PredictiveCoding(nets.mlp([6] * 3, classes=3)).sweeps == 8
        PredictiveCoding(nets.mlp([6] * 20, classes=3), sweeps=1, order="gauss-seidel")
        PredictiveCoding(nets.mlp([6] * 20, classes=3), sweeps=1, start="zero")
    with pytest.warns(UserWarning, match="first 9 of 20"):
        PredictiveCoding(nets.mlp([6] * 20, classes=3), sweeps=5, order="red-black")


def test_residual_is_the_slope_over_the_errors_before_the_last_sweep() -> None:
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    before, _ = by_whole_energy(list(net), x, one_hot(y), 6, 0.02, "jacobi", "cross-entropy")
    states = [x, *(s.detach().requires_grad_() for s in before[1:])]
    slopes = torch.autograd.grad(whole_energy(list(net), states, one_hot(y), "cross-entropy").sum(), states[1:])
    mu = [block(s) for block, s in zip(net, states, strict=True)]
    errors = [s - m for s, m in zip(states[1:], mu, strict=False)] + [one_hot(y) - mu[-1].softmax(1)]
    slope, error = (torch.cat(list(part), 1).norm(dim=1).detach() for part in (slopes, errors))
    found = PredictiveCoding(net, sweeps=7, rate=0.02, optimizer=sgd).step(x, y)["residual"]
    torch.testing.assert_close(found, (slope / error).mean(), rtol=1e-10, atol=0.0)


def test_the_rate_is_reported_as_it_was_left() -> None:
    x, y = batch((5, 6))
    assert PredictiveCoding(mlp([6, 9, 8]), rate=0.02).step(x, y)["rate"] == 0.02
    assert 0.0 < PredictiveCoding(mlp([6, 9, 8]), rate=3.0, sweeps=30).step(x, y)["rate"] < 3.0


def test_a_norm_learns_as_soon_as_the_error_is_behind_it() -> None:
    norm = nn.LayerNorm(9).double()
    net = nn.Sequential(
        nets.Block(layer(6, 9), norm, nn.Tanh()), nets.Block(layer(9, 8), None, nn.Tanh()), layer(8, 3)
    ).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rule = PredictiveCoding(net, states="before", sweeps=1, optimizer=sgd)
    before = copy.deepcopy(net)
    rule.step(*batch((5, 6)))
    assert torch.equal(net[0].affine.weight, before[0].affine.weight)  # the error has come to the second state
    assert not torch.equal(norm.weight, before[0].norm.weight)
