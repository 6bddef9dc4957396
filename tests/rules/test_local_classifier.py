"""Local classifiers: modules of any size, one after another or all at once, and what they promise."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.audit import audit
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules.local.heads import Readout
from altprop.rules.local.local_classifier import LocalClassifier
from steps import Opaque, gradients, learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)), torch.arange(shape[0]) % 4


def rule_on(widths: list[int], **options: object) -> LocalClassifier:
    return LocalClassifier(nets.mlp(widths, classes=4), optimizer=SGD, **options)


def moved_parts(rule: Rule, x: Tensor, y: Tensor) -> list[str]:
    """Which parts a step moves."""
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    rule.step(x, y)
    names = {name for name, p in rule.named_parameters() if not torch.equal(p, before[name])}
    words = {name.replace("net.", "blocks.") for name in names}
    return sorted({".".join(word.split(".")[:2]) for word in words})


def test_a_module_has_learnt_before_the_next_is_entered() -> None:
    x, y = batch(8, 6)
    learnt = learnt_when_entered(rule_on([6, 8, 7, 5, 5], block_size=2), x, y)
    assert [sum(found) for found in learnt] == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(("block_size", "heads"), [(1, {0, 1, 2}), (2, {1}), (3, {2}), (4, set()), (9, set())])
def test_heads_stand_on_all_modules_but_the_last(block_size: int, heads: set[int]) -> None:
    rule = rule_on([6, 8, 7, 5], block_size=block_size)
    assert {int(i) for i in rule.heads} == heads
    assert set(rule.optimizers) == {*(f"blocks.{i}" for i in range(4)), *(f"heads.{i}" for i in heads)}


def test_memory_is_flat_in_depth_unless_the_module_is_the_whole_net() -> None:
    x, y = batch(32, 20)

    def build(depth: int, block_size: int) -> LocalClassifier:
        return rule_on([20] * depth, block_size=block_size)

    assert len(set(peaks(partial(build, block_size=1), x, y))) == 1
    assert len(set(peaks(partial(build, block_size=2), x, y)[1:])) == 1  # at depth 4 no module lies between two
    low, middle, high = peaks(partial(build, block_size=64), x, y)
    assert middle > 1.5 * low and high > 2 * middle


@pytest.mark.parametrize("block_size", [3, 100])
def test_the_claims_hold_for_larger_modules(block_size: int) -> None:
    findings = audit(lambda net, problem, g: LocalClassifier(net, problem, generator=g, block_size=block_size))
    assert not [finding for finding in findings if not finding.holds]
    assert {f.claim: f.claimed for f in findings}["memory against depth"] == ("flat" if block_size == 3 else "grows")


def test_greedy_modules_learn_one_after_another_and_each_has_the_whole_schedule() -> None:
    rates: list[float] = []

    def schedule(progress: float) -> float:
        rates.append(progress)
        return 1.0

    rule = rule_on([6, 8, 7, 5], order="greedy", block_size=1, schedule=schedule)
    x, y = batch(8, 6)
    turns = {0.0: 0, 0.24: 0, 0.25: 1, 0.625: 2, 0.75: 3, 1.0: 3}
    for progress, i in turns.items():
        rule.progress = progress
        rates.clear()
        assert moved_parts(rule, x, y) == ([f"blocks.{i}", f"heads.{i}"] if i < 3 else ["blocks.3"])
        assert rates and all(rate == pytest.approx(4 * progress - i) for rate in rates)


def test_a_step_of_a_greedy_module_goes_no_further_than_it_and_reports_its_loss() -> None:
    rule = rule_on([6, 8, 7, 5], order="greedy")
    x, y = batch(8, 6)
    rule.progress = 0.3
    with torch.no_grad():
        expected = nn.functional.cross_entropy(rule.heads["1"](rule.net[:2](x)), y)
    with Trace(dict(rule.named_parameters())) as trace:
        metrics = rule.step(x, y)
    torch.testing.assert_close(metrics["loss"], expected)
    assert not [a for a in trace.accesses if a.parameter.startswith(("net.2", "net.3", "heads.0"))]


def test_frozen_and_empty_modules_are_passed_through_in_either_order() -> None:
    for order, size in (("simultaneous", 1), ("greedy", 1), ("simultaneous", 2)):
        first, second, output = nets.mlp([6, 8, 7], classes=4)
        first.requires_grad_(False)
        net = nn.Sequential(nn.Flatten(), first, Opaque(), second, output)
        rule = LocalClassifier(net, Problem((6,), 4), optimizer=SGD, order=order, block_size=size)
        assert "heads.1" not in rule.optimizers
        moved = moved_parts(rule, *batch(8, 6))
        learning = ["blocks.3", "heads.3"]
        assert moved == (learning if order == "greedy" else ["blocks.3", "blocks.4", *learning[1:]])
        assert all(p.grad is None for p in rule.parameters())


@pytest.mark.parametrize("order", ["greedy", "simultaneous"])
def test_a_net_that_is_frozen_whole_reports_its_loss(order: str) -> None:
    net = nets.mlp([6, 5, 4], classes=3).requires_grad_(False)
    x, y = torch.randn(7, 6), torch.arange(7) % 3
    rule = LocalClassifier(net, Problem((6,), 3), order=order)
    for part in list(rule.optimizers):  # heads, too
        rule.optimizers.pop(part)
    assert float(rule.step(x, y)["loss"]) > 0.0


def test_a_frozen_output_block_still_reports_its_loss() -> None:
    net = nets.mlp([6, 8], classes=4)
    net[-1].requires_grad_(False)
    rule = LocalClassifier(net, optimizer=SGD)
    x, y = batch(8, 6)
    assert moved_parts(rule, x, y) == ["blocks.0", "heads.0"]
    with torch.no_grad():
        expected = nn.functional.cross_entropy(net[1](net[0](x)), y)
    torch.testing.assert_close(rule.step(x, y)["loss"], expected, rtol=0.2, atol=0.0)


def test_regression_reads_out_half_the_squared_error() -> None:
    net = nets.mlp([6, 8], classes=2).double()
    rule = LocalClassifier(net, Problem((6,), 2, "regression"), optimizer=SGD)
    x, y = (torch.randn(5, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (6, 2))
    with torch.no_grad():
        h = net[0](x)
        head = (rule.heads["0"](h) - y).t() @ h / 5
    found = gradients(rule, x, y)
    torch.testing.assert_close(found["heads.0.linear.weight"], head)


def test_readouts_average_images_down_to_2048_values() -> None:
    g = torch.Generator().manual_seed(0)
    for shape, features in (((32, 32, 32), 32 * 64), ((8, 8, 8), 512), ((96, 7, 5), 96 * 4 * 3), ((4096, 2, 2), 4096)):
        assert Readout(shape, 3, g).linear.in_features == features
    h = torch.randn(2, 32, 16, 16, generator=g)
    head = Readout((32, 16, 16), 3, g)
    means = h.view(2, 32, 8, 2, 8, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(head(h), head.linear(means))


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        LocalClassifier(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="block_size=0 must be 1 or more"):
        rule_on([6, 8], block_size=0)
    with pytest.raises(UsageError, match="order='both' is not known; choose 'simultaneous' or 'greedy'"):
        rule_on([6, 8], order="both")
    with pytest.raises(UsageError, match="leaves sizes open"):
        LocalClassifier(nets.conv((2, 8, 8), [3], classes=4))
