"""FixedPrediction and ZIL equal backprop; and AdaptiveRelaxation, which keeps its feedback weights to itself."""

import copy

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Rule
from altprop.rules.energy.adaptive_relaxation import AdaptiveRelaxation
from altprop.rules.energy.fixed_prediction import FixedPrediction
from altprop.rules.energy.predictive_coding import PredictiveCoding
from altprop.rules.energy.z_il import ZIL
from energy_nets import NETS, backprop, batch, distance, gradients_of, mlp, one_hot, sample, sgd


@pytest.mark.parametrize("output", ["squared", "cross-entropy"])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", [FixedPrediction, ZIL])
def test_updates_are_backprops(kind: type[Rule], name: str, output: str) -> None:
    net = NETS[name]()
    x, y = sample(name)
    found = gradients_of(net, kind(net, output=output, optimizer=sgd), x, y)
    for a, b in zip(found, backprop(net, x, one_hot(y), output), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_errors_that_relax_all_at_once_come_to_backprop() -> None:
    net = mlp([6, 9, 8, 7], act="tanh")
    x, y = batch((5, 6))
    expected = backprop(net, x, one_hot(y))

    def error(**options: float) -> float:
        rule = FixedPrediction(net, output="squared", optimizer=sgd, **options)
        return distance(gradients_of(net, rule, x, y), expected)

    assert error(sweeps=3, rate=1.0) < 1e-14  # L - 1 sweeps
    assert error(sweeps=50, rate=0.5) < 1e-11
    assert 1e-9 < error(sweeps=200, rate=0.1) < 1e-6
    assert error(sweeps=3, rate=0.5) > 0.1


def test_z_il_learns_from_the_top_down_one_block_a_sweep() -> None:
    net = mlp([6, 9, 8])
    rule, order = ZIL(net), []
    for part, optimizer in rule.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, part=part: order.append(part))
    rule.step(*batch((5, 6)))
    assert order == ["blocks.2", "blocks.1", "blocks.0"]


@torch.no_grad()
def adaptive_by_hand(
    net: nn.Sequential, feedback: list[Tensor], x: Tensor, target: Tensor, sweeps: int, rate: float, lr: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Feedback matrices and weight gradients after a step, for tanh blocks and a squared error, in plain loops."""
    last = len(net) - 1
    states = [x]
    for block in net[:-1]:
        states.append(block(states[-1]))
    feedback = [v.clone() for v in feedback]

    def deltas() -> tuple[list[Tensor], list[Tensor]]:
        mu = [block(s) for block, s in zip(net, states, strict=True)]
        e = [(states[i + 1] if i < last else target) - m for i, m in enumerate(mu)]
        return e, [err if i == last else err * (1 - m**2) for i, (err, m) in enumerate(zip(e, mu, strict=True))]

    rates = torch.full((len(x), 1), rate, dtype=x.dtype)
    for _ in range(sweeps):
        e, d = deltas()
        states = [x] + [states[i] + rates * (d[i] @ feedback[i] - e[i - 1]) for i in range(1, last + 1)]
        before = sum(err.square().sum(1, keepdim=True) for err in e)
        e, d = deltas()
        rates = torch.where(sum(err.square().sum(1, keepdim=True) for err in e) <= before, rates, rates / 2)
        for i in range(1, last + 1):
            feedback[i] += lr * d[i].T @ states[i] / len(x)
    _, d = deltas()
    return feedback, [-(d[i].T @ states[i]) / len(x) for i in range(last + 1)]


@pytest.mark.parametrize("feedback", ["copy", "random"])
def test_adaptive_relaxation_equals_plain_loops(feedback: str) -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    optimizer = {"blocks": sgd, "feedback": lambda parameters: torch.optim.SGD(parameters, lr=0.5)}
    rule = AdaptiveRelaxation(net, rate=0.02, feedback=feedback, output="squared", optimizer=optimizer).double()
    before = [torch.zeros(())] + [rule._matrix(i).detach().clone() for i in range(1, 4)]
    matrices, expected = adaptive_by_hand(net, before, x, one_hot(y), 8, 0.02, 0.5)
    found = gradients_of(net, rule, x, y)[::2]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    for i in range(1, 4):
        torch.testing.assert_close(rule._matrix(i).detach(), matrices[i], rtol=1e-10, atol=1e-13)
        assert float((matrices[i] - before[i]).norm()) > 1e-6


def test_feedback_weights_are_a_copy_and_never_a_view() -> None:
    """Relaxing must not change a forward weight; only what learns after it does."""
    net = mlp([6, 9, 8, 7])
    frozen = {"blocks": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    rule = AdaptiveRelaxation(net, optimizer={**frozen, "feedback": lambda p: torch.optim.SGD(p, lr=0.1)})
    before = copy.deepcopy(net)
    for i in range(1, 4):
        assert torch.equal(rule._matrix(i), nets.affine(net[i]).weight)
        assert rule._matrix(i).untyped_storage().data_ptr() != nets.affine(net[i]).weight.untyped_storage().data_ptr()
    rule.step(*batch((5, 6)))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before.parameters(), strict=True))
    assert not any(torch.equal(rule._matrix(i), nets.affine(net[i]).weight) for i in range(1, 4))


def test_with_feedback_that_stays_the_copy_it_is_predictive_coding() -> None:
    net = mlp([6, 9, 8, 7], act="tanh", init="uniform")
    x, y = batch((5, 6))
    still = {"blocks": sgd, "feedback": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    adaptive = gradients_of(net, AdaptiveRelaxation(net, optimizer=still), x, y)
    plain = gradients_of(net, PredictiveCoding(net, sweeps=8, optimizer=sgd), x, y)
    assert distance(adaptive, plain) < 1e-12


def test_weight_decay_on_both_brings_random_feedback_to_the_forward_weights() -> None:
    """Kolen & Pollack 1994: equal updates keep the difference of two matrices, and decay takes it away."""
    net = mlp([6, 16, 16], act="tanh", init="uniform")
    same = {"lr": 0.1, "weight_decay": 0.1}
    optimizer = {name: lambda p: torch.optim.SGD(p, **same) for name in ("blocks", "feedback")}
    rule = AdaptiveRelaxation(net, sweeps=1, feedback="random", optimizer=optimizer).double()

    def angle(i: int) -> float:
        pair = rule._matrix(i).detach().flatten(), nets.affine(net[i]).weight.detach().flatten()
        return float(torch.cosine_similarity(*pair, dim=0))

    start = [angle(i) for i in (1, 2)]
    x, y = batch((64, 6))
    for _ in range(400):
        rule.step(x, y)
    assert all(abs(a) < 0.5 for a in start) and angle(2) > 0.9, (start, angle(1), angle(2))


def test_what_they_refuse() -> None:
    net = mlp([6, 8])
    for options in ({"sweeps": 0}, {"rate": 0.0}, {"output": "hinge"}):
        for kind in (FixedPrediction, AdaptiveRelaxation):
            with pytest.raises(UsageError, match=str(next(iter(options.values())))):
                kind(net, **options)
    with pytest.raises(UsageError, match="copy"):
        AdaptiveRelaxation(net, feedback="view")
    with pytest.raises(UsageError, match="block 0 is not a linear layer"):
        AdaptiveRelaxation(NETS["conv"]())
