"""Soft winner-take-all against loops over single samples, against its fixed points, and what it promises."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.soft_wta import SoftWTA, centred, change, columns, responsibilities, triangle
from steps import gradients, peaks

SGD = partial(torch.optim.SGD, lr=1.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net_of(*widths: int, seed: int = 0, **options: object) -> nn.Sequential:
    return nets.mlp(widths, generator=torch.Generator().manual_seed(seed), **options).double()


def rule_of(*widths: int, classes: int = 3, **options: object) -> SoftWTA:
    return SoftWTA(net_of(*widths), Problem((widths[0],), classes), **options)


def naive_change(x: Tensor, w: Tensor, t: float, m: int) -> Tensor:
    """One sample and one unit at a time, through the (batch, units, inputs) tensor."""
    n, k, size = len(x), len(w), len(w) // m
    y = torch.zeros(n, k, dtype=x.dtype)
    for i in range(n):
        u = [float(w[j] @ x[i]) for j in range(k)]
        for j in range(k):
            column = range(j // size * size, j // size * size + size)
            y[i, j] = max(0.0, u[j]) / sum(math.exp(t * (u[other] - u[j])) for other in column)
    steps = torch.stack(
        [torch.stack([y[i, j] * (x[i] - sum(y[i, o] * w[o] for o in range(k))) for j in range(k)]) for i in range(n)]
    )
    sums = torch.tensor([sum(float(y[i, j] * y[i].sum()) for i in range(n)) for j in range(k)], dtype=x.dtype)
    return steps.sum(0) / (sums + sums.mean()).unsqueeze(1)


@pytest.mark.parametrize("most", [1, 2, 4, 100], ids=["one column", "two", "four", "a unit each"])
def test_change_equals_a_loop_over_samples_and_units(most: int) -> None:
    rule = rule_of(6, 8, 12, columns=most, inverse_temperature=5.0, settle=0.8)
    rule.progress = 0.2
    x, y = normal(7, 6, seed=1), torch.arange(7) % 3
    h = torch.stack([(row - row.mean()) / (row - row.mean()).norm() for row in x])
    expected = {}
    for i, block in enumerate(rule.net):
        w, m = block.affine.weight.detach().clone(), columns(len(block.affine.weight), most)
        expected[f"net.{i}.affine.weight"] = -0.75 * naive_change(h, w, 5.0, m)
        h = (h @ w.T).relu()
        h = torch.stack([(row - row.mean()) / (row - row.mean()).norm() for row in h])
    found = gradients(rule, x, y)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)


def test_readout_gradient_is_that_of_cross_entropy_on_features_held_fixed() -> None:
    rule = rule_of(6, 9)
    x, y = normal(7, 6), torch.arange(7) % 3
    for _ in range(3):
        rule.step(x, y)
    h = rule.net[0](centred(x)).detach()
    z = torch.nn.functional.relu((h - h.mean(1, keepdim=True)) / (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt())
    scores = rule.head(z.square())
    loss = nn.functional.cross_entropy(scores, y)
    expected = torch.autograd.grad(loss, list(rule.head.parameters()))
    torch.testing.assert_close(rule(x), scores, rtol=1e-10, atol=1e-12)
    found = gradients(rule, x, y)
    torch.testing.assert_close(found["head.weight"], expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["head.bias"], expected[1], rtol=1e-10, atol=1e-12)


def test_responsibilities_sum_to_one_in_each_column_and_sharpen_to_one_winner() -> None:
    u = normal(50, 12)
    soft = responsibilities(u, 2.0, 3)
    torch.testing.assert_close(soft.view(50, 3, 4).sum(2), torch.ones(50, 3, dtype=u.dtype))
    torch.testing.assert_close(soft.view(50, 3, 4), (2.0 * u.view(50, 3, 4)).softmax(2))
    hard = responsibilities(u, 1e6, 3).view(50, 3, 4)
    winners = nn.functional.one_hot(u.view(50, 3, 4).argmax(2), 4).to(u.dtype)
    torch.testing.assert_close(hard, winners, rtol=0.0, atol=1e-100)


def test_a_step_of_rate_one_never_explains_the_same_activities_worse() -> None:
    x, y, w = normal(20, 9), normal(20, 30, seed=1).abs() * 10.0, normal(30, 9, seed=2)
    before = (x - y @ w).square().sum()
    for rate in (0.5, 1.0, 2.0):  # beyond the bound of 2, with the mean of s beyond 4, it may
        assert (x - y @ (w + rate * change(x, y.clone(), w))).square().sum() < before


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_finds_the_directions_of_separate_clusters_with_norms_of_one(scale: float) -> None:
    centres = centred(normal(6, 20))
    rule = rule_of(20, 24, columns=1, inverse_temperature=1e4, settle=1.0)
    with torch.no_grad():
        weight = rule.net[0].affine.weight
        weight.copy_(scale * nn.functional.normalize(weight))
        for step in range(400):
            rule.progress = step / 400
            y = torch.randint(6, (32,), generator=torch.Generator().manual_seed(step))
            rule.step(centres[y] + 0.01 * normal(32, 20, seed=step), y % 3)
        cosines, best = (centres @ nn.functional.normalize(weight).T).max(1)
    assert bool((cosines > 0.999).all()), cosines
    torch.testing.assert_close(weight[best].norm(dim=1), torch.ones(6, dtype=weight.dtype), rtol=0.0, atol=1e-3)


def subnormal(tensor: Tensor) -> int:
    """How many denormals it holds."""
    return int(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)).sum())


@pytest.mark.parametrize("t", [1.0, 20.0, 1e4])
def test_no_subnormal_numbers_anywhere(t: float) -> None:
    net = nets.mlp([20, 40, 40])
    rule = SoftWTA(net, Problem((20,), 4), inverse_temperature=t)
    seen: list[Tensor] = []
    for optimizer in rule.optimizers.values():
        optimizer.register_step_pre_hook(
            lambda o, *_: seen.extend(p.grad.clone() for g in o.param_groups for p in g["params"] if p.grad is not None)
        )
    for step in range(150):
        x = normal(32, 20, seed=step).float()
        rule.step(x, x[:, :4].argmax(1))
        r = responsibilities(net[0].affine(centred(x)).detach(), t, 10)
        seen += [r, r * r, r.unsqueeze(2) * centred(x).unsqueeze(1)]
        assert sum(subnormal(tensor) for tensor in seen) == 0
        seen.clear()
    assert all(subnormal(p) == 0 for p in rule.parameters())


def test_a_very_sure_readout_makes_no_subnormal_numbers() -> None:
    rule = SoftWTA(nets.mlp([6, 8]), Problem((6,), 3))
    with torch.no_grad():
        rule.head.bias.copy_(torch.tensor([0.0, -90.0, -95.0]))
    found = gradients(rule, normal(4, 6).float(), torch.zeros(4, dtype=torch.int64))
    assert subnormal(found["head.weight"]) == subnormal(found["head.bias"]) == 0


def test_on_a_frozen_net_it_is_the_control() -> None:
    net = net_of(6, 8, 8)
    net.requires_grad_(False)
    before = {n: p.clone() for n, p in net.named_parameters()}
    rule = SoftWTA(net, Problem((6,), 3))
    x, y = normal(30, 6), torch.arange(30) % 3
    losses = [float(rule.step(x, y)["loss"]) for _ in range(30)]
    assert list(rule.optimizers) == ["head"]
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_body_slows_with_progress_and_stops_at_settle() -> None:
    x, y = normal(8, 6), torch.arange(8) % 3
    weights, heads = [], []
    for progress in (0.0, 0.3, 0.6):
        rule = rule_of(6, 8, settle=0.6, optimizer=SGD)
        rule.progress = progress
        start = rule.net[0].affine.weight.detach().clone()
        rule.step(x, y)
        weights.append((rule.net[0].affine.weight - start).norm())
        heads.append(rule.head.weight.norm())
    torch.testing.assert_close(weights[1], weights[0] / 2)
    assert weights[2] == 0.0
    assert heads[0] == heads[1] == heads[2] > 0.0


def test_body_learns_the_same_from_any_labels() -> None:
    x = normal(8, 6)
    one, other = rule_of(6, 8), rule_of(6, 8)
    for step in range(5):
        one.step(x, torch.arange(8) % 3)
        other.step(x, (torch.arange(8) + step) % 3)
    assert torch.equal(one.net[0].affine.weight, other.net[0].affine.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = normal(32, 20), torch.arange(32) % 3
    found = peaks(lambda depth: rule_of(*[20] * (depth + 1)), x, y)
    assert len(set(found)) == 1, found


def test_peak_memory_stays_below_one_number_a_sample_unit_and_input() -> None:
    rule = rule_of(50, 60)
    x, y = normal(100, 50), torch.arange(100) % 3
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    assert trace.peak_bytes < 8 * 100 * 50 * 60 / 5


@pytest.mark.parametrize(("progress", "products"), [(0.0, 3), (0.9, 1)], ids=["learning", "settled"])
def test_operations_equal_a_hand_count_and_no_product_is_wasted(progress: float, products: int) -> None:
    n, d, k1, k2, c = 16, 12, 10, 8, 3
    rule = rule_of(d, k1, k2)
    rule.progress = progress
    x, y = normal(n, d), torch.arange(n) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    body = products * n * (d * k1 + k1 * k2)  # X W^T; Y W and Y^T (X - Y W)
    sums = n * (k1 + k2) if products == 3 else 0  # s
    head = 2 * n * k2 * c  # scores, and the weights' gradient
    assert trace.operations == 2 * (body + sums + head)


def test_columns_divide_the_units() -> None:
    assert [columns(k, 10) for k in (2000, 64, 97, 8, 1)] == [10, 8, 1, 8, 1]


def test_triangle_is_relu_of_standardised_rows_to_a_power() -> None:
    h = normal(4, 7)
    standard = (h - h.mean(1, keepdim=True)) / h.std(1, unbiased=False, keepdim=True)
    torch.testing.assert_close(triangle(h, 3.0), standard.clamp_min(0.0) ** 3, rtol=1e-3, atol=1e-5)


def test_blocks_without_parameters_and_bare_linear_layers_are_fine() -> None:
    generator = torch.Generator().manual_seed(0)
    first, last = nets.linear(12, 8, "lecun", generator), nets.linear(8, 6, "lecun", generator)
    net = nn.Sequential(nn.Flatten(), first, nets.Block(last, nn.LayerNorm(6, elementwise_affine=False), nn.ReLU()))
    rule = SoftWTA(net, Problem((3, 4), 2))
    before = [layer.weight.detach().clone() for layer in (first, last)]
    x, y = torch.rand(5, 3, 4, generator=generator), torch.arange(5) % 2
    assert bool(torch.isfinite(rule.step(x, y)["loss"]))
    assert not any(torch.equal(layer.weight, w) for layer, w in zip((first, last), before, strict=True))
    assert rule(x).shape == (5, 2)


def test_inputs_without_any_signal_do_no_harm() -> None:
    rule = rule_of(6, 8)
    before = rule.net[0].affine.weight.detach().clone()
    rule.step(torch.ones(4, 6, dtype=torch.float64), torch.arange(4) % 3)
    assert torch.equal(rule.net[0].affine.weight, before)


@pytest.mark.parametrize(
    ("net", "problem", "words"),
    [
        (nets.mlp([4, 5], classes=3), Problem((4,), 3), "without classes"),
        (nets.mlp([4, 5]), Problem((4,), 3, "regression"), "cross-entropy"),
        (nets.conv([1, 8, 8], [2]), Problem((1, 8, 8), 3), "not supported yet"),
        (nn.Sequential(nn.Flatten()), Problem((4,), 3), "needs a linear block"),
        (nn.Sequential(*nets.mlp([4, 5]), nn.LayerNorm(5)), Problem((4,), 3), "block 1 has parameters"),
        (nets.mlp([4, 5]), Problem((7, 4), 3), "sees .7, 4. for a sample, and this rule learns from rows"),
    ],
    ids=["output block", "regression", "convolution", "nothing to learn", "another kind of block", "sequence"],
)
def test_says_what_it_does_not_support(net: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SoftWTA(net, problem)


@pytest.mark.parametrize("options", [{"columns": 0}, {"inverse_temperature": 0.0}, {"power": -1.0}, {"settle": 0.0}])
def test_refuses_hyperparameters_without_a_meaning(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one column"):
        rule_of(4, 5, **options)
