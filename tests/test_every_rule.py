"""What every rule in RULES must do; a new rule is tested here without a new test."""

import copy
import math

import pytest
import torch

from altprop.analysis.trace import Trace
from altprop.bench.audits import findings
from altprop.bench.evaluate import evaluate
from altprop.bench.meter import named_tensors
from altprop.catalogue import describe
from altprop.errors import UsageError
from altprop.rules import RULES, find
from every import DIGITS, accuracy, batches, rule_of, same, state, teach

FLOORS = {
    "backprop": 0.92,
    "forward-forward": 0.85,
    "signal-propagation": 0.88,
    "direct-feedback-alignment": 0.90,
    "predictive-coding": 0.90,
    "soft-wta": 0.85,
}
"""Test accuracy on the digits after 15 epochs, below what each reaches; a rule that is not here must reach 0.8."""

every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
def test_learns_the_digits_by_every_predictor(name: str) -> None:
    rule = rule_of(name)
    before = accuracy(rule)
    after = accuracy(teach(rule, batches(32, 15 * 38)))
    assert after.keys() == before.keys()
    assert all(value >= FLOORS.get(name, 0.8) for value in after.values()), after
    assert all(value < 0.5 for value in before.values()), before


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_same_seed_same_bits(name: str, dtype: torch.dtype) -> None:
    data = batches(32, 10, dtype)
    one, other = (teach(rule_of(name, dtype), data) for _ in range(2))
    assert same(state(one), state(other))
    assert not same(state(one), state(teach(rule_of(name, dtype, seed=1), data)))
    assert all(p.dtype == dtype for p in one.parameters())
    assert all(bool(torch.isfinite(p).all()) for p in one.parameters())


@every_rule
def test_learns_whatever_the_global_random_state(name: str) -> None:
    data = batches(32, 3)
    torch.manual_seed(1)
    one = teach(rule_of(name), data)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = teach(rule_of(name), data)
    assert same(state(one), state(other))
    assert torch.equal(before, torch.get_rng_state())


@every_rule
def test_short_last_batch_and_batch_of_one(name: str) -> None:
    rule = rule_of(name)
    (x, y), *_ = batches(32, 1)
    for size in (32, 13, 1) if rule.claims.batch_of_one else (32, 13):
        before = state(rule)
        metrics = rule.step(x[:size], y[:size])
        assert (
            metrics["loss"].dim() == 0 and not metrics["loss"].requires_grad and bool(torch.isfinite(metrics["loss"]))
        )
        assert not same(before, state(rule))


@every_rule
@pytest.mark.parametrize("progress", [0.2, 0.7])
def test_training_state_round_trip_in_the_middle(name: str, progress: float) -> None:
    data = batches(32, 12)
    rule = teach(rule_of(name), data[:6], end=progress)
    saved = rule.training_state()
    ahead = state(teach(rule, data[6:], progress))
    fresh = rule_of(name)
    fresh.load_training_state(saved)
    assert same(ahead, state(teach(fresh, data[6:], progress)))
    with pytest.raises(UsageError, match="cannot be loaded"):
        rule_of(name, widths=(20, 20)).load_training_state(saved)


@every_rule
def test_evaluating_changes_no_bit(name: str) -> None:
    data = batches(32, 6)
    plain, watched = rule_of(name), rule_of(name)
    for i, (x, y) in enumerate(data):
        for rule in (plain, watched):
            rule.progress = i / len(data)
            rule.step(x, y)
        watched.finish()
        evaluate(watched, DIGITS, torch.device("cpu"))
    assert same(state(plain), state(watched))


@every_rule
def test_no_gradient_and_no_graph_are_left_behind(name: str) -> None:
    rule = teach(rule_of(name), batches(32, 2))
    assert all(p.grad is None for p in rule.parameters())
    assert all(not t.requires_grad for t in rule.buffers())


@every_rule
def test_a_copy_learns_alike_and_alone(name: str) -> None:
    data = batches(32, 6)
    rule = teach(rule_of(name), data[:3])
    twin = copy.deepcopy(rule)
    before = state(rule)
    teach(twin, data[3:])
    assert same(before, state(rule))
    assert same(state(teach(rule, data[3:])), state(twin))


@every_rule
def test_moves_to_double_after_the_first_step(name: str) -> None:
    rule = teach(rule_of(name), batches(32, 2)).double()
    x, y = batches(32, 1, torch.float64)[0]
    assert bool(torch.isfinite(rule.step(x, y)["loss"]))
    moments = (v for o in rule.optimizers.values() for s in o.state.values() for v in s.values() if v is not None)
    assert all(v.dtype == torch.float64 for v in moments if torch.is_tensor(v) and v.dim() > 0)


@every_rule
def test_predictions_are_scores_of_the_right_shape(name: str) -> None:
    rule = rule_of(name).eval()
    x, _ = DIGITS.test.batch(slice(0, 7))
    for predict in rule.predictors().values():
        with torch.no_grad():
            assert predict(x).shape == (7, DIGITS.classes)
    with torch.no_grad():
        alone = torch.cat([rule(x[i : i + 1]) for i in range(7)])
        torch.testing.assert_close(rule(x), alone, rtol=1e-4, atol=1e-5)


@every_rule
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y: (x, y + 9), "classes 0 to 9"),
        (lambda x, y: (x, y.float()), "must be integers"),
        (lambda x, y: (x * float("nan"), y), "NaN or infinite"),
        (lambda x, y: (torch.where(x == x.max(), -math.inf, x), y), "NaN or infinite"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
        (lambda x, y: (x[:, 1:], y), "the net takes"),
        (lambda x, y: (x, y[1:]), "inputs but"),
        (lambda x, y: (x.double(), y), "convert one"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(name: str, spoil: object, words: str) -> None:
    rule = rule_of(name)
    before = state(rule)
    assert callable(spoil)
    with pytest.raises(UsageError, match=words):
        rule.step(*spoil(*batches(32, 1)[0]))
    assert same(before, state(rule))


@every_rule
def test_every_step_costs_the_same(name: str) -> None:
    rule = teach(rule_of(name), batches(32, 4))  # at the 1st, 2nd and 4th a rule may look at what it sees
    x, y = batches(32, 1)[0]
    counts = []
    for _ in range(2):
        with Trace(named_tensors(rule)) as trace:
            rule.step(x, y)
        counts.append((trace.operations, trace.peak_bytes))
    assert counts[0] == counts[1]
    assert counts[0][0] > 0


@every_rule
def test_claims_hold(name: str) -> None:
    broken = [finding for finding in findings(name) if not finding.holds]
    assert not broken


@every_rule
def test_is_described_without_torch(name: str) -> None:
    line, claims = describe(name)
    assert line and claims == vars(find(name).claims)
