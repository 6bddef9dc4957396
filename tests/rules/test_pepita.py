"""PEPITA against its update written out sample by sample, MEMPEPITA against PEPITA, and what both promise."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.audit import audit
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.pepita import PEPITA
from steps import Opaque, gradients, peaks

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
BOTH = pytest.mark.parametrize("recompute", [False, True], ids=["pepita", "mempepita"])


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> PEPITA:
    return PEPITA(net.double(), Problem(shape, 4), optimizer=SGD, scale=1.0, **options)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def error(scores: Tensor, label: Tensor) -> Tensor:
    p = scores.exp() / scores.exp().sum()
    return p - torch.eye(len(p), dtype=p.dtype)[label]


def naive_gradients(rule: PEPITA, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """For a perceptron: one sample after another, with outer products."""
    layers = [block.affine for block in rule.net]
    found = {name: torch.zeros_like(p) for name, p in rule.named_parameters()}

    def passed(h: Tensor) -> list[Tensor]:
        hs = [h]
        for block in rule.net:
            z = block.affine.weight @ hs[-1] + block.affine.bias
            if block.norm is not None:
                z = (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt()
            hs.append(z if block.activation is None else block.activation(z))
        return hs

    for sample, label in zip(x, y, strict=True):
        plain = passed(sample)
        e = error(plain[-1], label)
        f = rule.get_buffer("feedback").t()
        changed = passed(sample + f @ e)
        for i in range(len(layers)):
            delta = e if i == len(layers) - 1 else plain[i + 1] - changed[i + 1]
            found[f"net.{i}.affine.weight"] += torch.outer(delta, changed[i]) / len(x)
            found[f"net.{i}.affine.bias"] += delta / len(x)
    return found


@BOTH
@pytest.mark.parametrize(
    "net",
    [
        nets.mlp([6, 8, 7, 5], classes=4),
        nets.mlp([6, 8, 7], classes=4, act="tanh", norm=True),
        nets.mlp([6], classes=4),
    ],
    ids=["relu", "tanh with layer norm", "no hidden block"],
)
def test_updates_equal_outer_products_sample_by_sample(net: nn.Sequential, recompute: bool) -> None:
    rule = rule_on(net, 6, recompute=recompute)
    x, y = batch(5, 6)
    with torch.no_grad():
        expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert bool(value.any())
        close(value, expected[name])


@BOTH
def test_a_convolution_compares_activities_before_pooling_and_averages_over_places(recompute: bool) -> None:
    rule = rule_on(nets.conv((2, 8, 8), [3, 5], classes=4), 2, 8, 8, recompute=recompute)
    x, y = batch(3, 2, 8, 8)
    found = gradients(rule, x, y)
    net = rule_on(nets.conv((2, 8, 8), [3, 5], classes=4), 2, 8, 8).net  # the weights before the step
    layer = net[0].affine
    weight = torch.zeros_like(layer.weight)
    bias = torch.zeros_like(layer.bias)
    with torch.no_grad():
        for sample, label in zip(x, y, strict=True):
            e = error(net(sample[None])[0], label)
            modulated = sample + sum(e[m] * rule.get_buffer("feedback")[m] for m in range(4))
            padded = nn.functional.pad(modulated, (1, 1, 1, 1))
            difference = layer(sample[None])[0].relu() - layer(modulated[None])[0].relu()
            for row in range(8):
                for column in range(8):
                    patch = padded[:, row : row + 3, column : column + 3]
                    delta = difference[:, row, column] / (64 * len(x))
                    weight += delta[:, None, None, None] * patch
                    bias += delta
    close(found["net.0.affine.weight"], weight)
    close(found["net.0.affine.bias"], bias)
    assert len(found) == 6  # the flattened second block and the output block learn too


@BOTH
def test_regression_modulates_by_the_difference(recompute: bool) -> None:
    net = nets.mlp([6, 8], classes=2).double()
    rule = PEPITA(net, Problem((6,), 2, "regression"), optimizer=SGD, recompute=recompute)
    x, _ = batch(5, 6)
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    with torch.no_grad():
        e = net(x) - y
        modulated = x + e @ rule.get_buffer("feedback")
        h, changed = net[0](x), net[0](modulated)
    found = gradients(rule, x, y)
    close(found["net.0.affine.weight"], (h - changed).t() @ modulated / 5)
    close(found["net.1.affine.weight"], e.t() @ changed / 5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nets.mlp([6, 8, 7, 5], classes=4), (6,)),
        (lambda: nets.conv((2, 8, 8), [3, 5], classes=4), (2, 8, 8)),
        (
            lambda: nets.local((2, 8, 8), [(3, 4, 2), (5, 2, 1)], classes=4),
            (2, 8, 8),
        ),
    ],
    ids=["perceptron", "conv", "local fields"],
)
def test_mempepita_makes_the_updates_of_pepita(make: object, shape: tuple[int, ...]) -> None:
    assert callable(make)
    rule, other = rule_on(make(), *shape), rule_on(make(), *shape, recompute=True)
    before = [p.detach().clone() for p in rule.parameters()]
    for _ in range(5):
        x, y = batch(12, *shape)
        rule.step(x, y)
        other.step(x, y)
    for p, q, old in zip(rule.parameters(), other.parameters(), before, strict=True):
        torch.testing.assert_close(p, q, rtol=0.0, atol=1e-12)
        assert not torch.equal(p, old)


def test_mempepita_needs_the_same_memory_at_any_depth_and_pepita_does_not() -> None:
    x, y = batch(32, 20)

    def build(depth: int, recompute: bool) -> PEPITA:
        return rule_on(nets.mlp([20] * depth, classes=4), 20, recompute=recompute)

    assert len(set(peaks(partial(build, recompute=True), x, y))) == 1
    low, middle, high = peaks(partial(build, recompute=False), x, y)
    assert middle > 1.5 * low and high > 2 * middle


def test_the_claims_of_mempepita_hold() -> None:
    findings = audit(lambda net, problem, g: PEPITA(net, problem, generator=g, recompute=True))
    assert not [finding for finding in findings if not finding.holds]
    assert {f.claim: f.claimed for f in findings}["memory against depth"] == "flat"
    assert PEPITA.claims.memory == "grows"


@BOTH
def test_operations_equal_a_hand_count_and_no_product_is_wasted(recompute: bool) -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = PEPITA(nets.mlp([n0, n1, n2], classes=c), recompute=recompute)
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    hidden, output = n0 * n1 + n1 * n2, n2 * c
    passes = (3 if recompute else 2) * hidden + output  # the output block is asked once
    assert trace.operations == 2 * b * (passes + c * n0 + hidden + output)


@BOTH
def test_a_block_has_learnt_before_the_next_one_is_entered(recompute: bool) -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4), 6, recompute=recompute)
    order: list[str] = []
    for i, block in enumerate(rule.net):
        block.affine.register_forward_pre_hook(lambda *_, i=i: order.append(f"enter {i}"))
        rule.optimizers[f"blocks.{i}"].register_step_pre_hook(lambda *_, i=i: order.append(f"learn {i}"))
    rule.step(*batch(5, 6))
    times = 2 if recompute else 1
    second = ["enter 0"] * times + ["learn 0"] + ["enter 1"] * times + ["learn 1", "learn 2"]
    assert order == ["enter 0", "enter 1", "enter 2", *second]


@BOTH
def test_activations_and_blocks_without_derivative_are_no_hindrance(recompute: bool) -> None:
    first, second, output = nets.mlp([6, 20, 20], classes=4)
    first.activation = Opaque()
    rule = rule_on(nn.Sequential(nn.Flatten(), first, Opaque(), second, output), 6, recompute=recompute)
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


@BOTH
def test_activations_in_place_change_nothing(recompute: bool) -> None:
    def build(in_place: bool) -> PEPITA:
        net = nets.mlp([6, 8, 7], classes=4)
        for block in net[:-1]:
            block.activation = nn.ReLU(inplace=in_place)
        return rule_on(net, 6, recompute=recompute)

    x, y = batch(5, 6)
    expected = gradients(build(False), x, y)
    for name, value in gradients(build(True), x, y).items():
        assert torch.equal(value, expected[name])


@BOTH
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_blocks_stay(frozen: int, recompute: bool) -> None:
    net = nets.mlp([6, 8, 7], classes=4)
    net[frozen].requires_grad_(False)
    rule = rule_on(net, 6, recompute=recompute)
    before = [block.affine.weight.clone() for block in net]
    rule.step(*batch(12, 6))
    same = [torch.equal(block.affine.weight, w) for block, w in zip(net, before, strict=True)]
    assert same == [i == frozen for i in range(3)]
    assert all(p.grad is None for p in net.parameters())


def test_feedback_is_a_buffer_of_the_documented_size_from_the_generator() -> None:
    def build(seed: int) -> PEPITA:
        net = nets.conv((2, 10, 12), [3], classes=50)
        return PEPITA(net, Problem((2, 10, 12), 50), scale=0.5, generator=torch.Generator().manual_seed(seed))

    rule = build(0)
    f = rule.get_buffer("feedback")
    assert f.shape == (50, 2, 10, 12) and "feedback" in rule.state_dict()
    bound = 0.5 * (6 / 240) ** 0.5
    assert float(f.abs().max()) <= bound and abs(float(f.std()) / bound - 3**-0.5) < 0.01
    assert torch.equal(f, build(0).get_buffer("feedback"))
    assert not torch.equal(f, build(1).get_buffer("feedback"))
    before = f.clone()
    rule.step(torch.randn(4, 2, 10, 12, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert torch.equal(f, before)


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        PEPITA(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="leaves sizes open"):
        PEPITA(nets.conv((2, 8, 8), [3], classes=4))
    norm = nets.Block(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(UsageError, match="mix its two passes"):
        PEPITA(nn.Sequential(norm, nn.Linear(8, 4)))
    own = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    with pytest.raises(UsageError, match="block 0 has trainable parameters outside"):
        PEPITA(nn.Sequential(own, nn.Linear(8, 4)), Problem((6,), 4))
    own.requires_grad_(False)
    PEPITA(nn.Sequential(own, nn.Linear(8, 4)), Problem((6,), 4)).step(torch.ones(2, 6), torch.arange(2))
