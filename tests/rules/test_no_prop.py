"""NoProp against its loss written out for one whole graph, its schedule against Gaussian algebra, and its promises."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.denoising import cosine_signal, denoising_steps
from altprop.rules.forward_only.no_prop import NoProp
from steps import gradients, learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % classes


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> NoProp:
    return NoProp(net.double(), Problem(shape, 4), optimizer=SGD, **options).double()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# The schedule.


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
def test_signal_rises_from_nothing_to_nearly_all(steps: int) -> None:
    signal = cosine_signal(steps)
    assert len(signal) == steps + 1
    assert signal == sorted(signal)
    assert signal[0] == pytest.approx(0.0, abs=1e-30)
    assert 0.9998 < signal[-1] < 1.0
    rises = sum(step.rise for step in denoising_steps(signal))
    assert rises == pytest.approx(signal[-1] / (1 - signal[-1]), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_steps_are_the_closed_form_of_conditioning_a_gaussian(steps: int) -> None:
    signal = cosine_signal(steps)
    for t, step in enumerate(denoising_steps(signal), 1):
        # Given u, z_t = mean + noise, and z_{t-1} = root z_t + noise; then the textbook's z_t given z_{t-1} and u.
        root = math.sqrt(signal[t - 1] / signal[t])
        variance = 1 - signal[t]
        rows = [[variance, root * variance], [root * variance, root**2 * variance + 1 - root**2]]
        covariance = torch.tensor(rows, dtype=torch.float64)
        gain = covariance[0, 1] / covariance[1, 1]
        mean_u = math.sqrt(signal[t]) * (1 - gain * root)
        assert float(covariance[1, 1]) == pytest.approx(1 - signal[t - 1], rel=1e-12)
        for found, expected in ((step.a, mean_u), (step.b, gain), (step.c, covariance[0, 0] - gain * covariance[0, 1])):
            assert found == pytest.approx(float(expected), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_chain_of_steps_has_the_marginals_of_the_schedule(steps: int) -> None:
    signal = cosine_signal(steps)
    mean, variance = math.sqrt(signal[0]), 1 - signal[0]
    for t, step in enumerate(denoising_steps(signal), 1):
        mean, variance = step.a + step.b * mean, step.b**2 * variance + step.c
        assert mean == pytest.approx(math.sqrt(signal[t]), abs=1e-12)
        assert variance == pytest.approx(1 - signal[t], abs=1e-12)


# The update.

NETS = pytest.mark.parametrize(
    ("make", "shape", "groups"),
    [
        (lambda: nets.mlp([6, 8, 7, 5]), (6,), [[0], [1], [2]]),
        (lambda: nets.mlp([6, 8], act="tanh", norm=True), (6,), [[0]]),
        (lambda: nets.conv((2, 8, 8), [3, 5]), (2, 8, 8), [[0], [1]]),
        (lambda: nets.local((2, 8, 8), [(3, 4, 2), (5, 2, 1)], init="kaiming"), (2, 8, 8), [[0], [1]]),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 7), nn.Tanh(), nn.Linear(7, 5), nn.ReLU()),
            (2, 3, 3),
            [[1, 2], [3, 4]],
        ),
    ],
    ids=["relu", "one step, tanh with layer norm", "conv with pooling", "local fields", "blocks without weights"],
)


def guess(rule: NoProp, group: list[int], x: Tensor, z: Tensor, u: Tensor) -> Tensor:
    """û of a step, with its parts one by one."""
    i = str(group[0])
    h = rule.entries[i](x) if i in rule.entries else x
    for j in group:
        h = rule.net[j](h)
    weight, bias = rule.heads[i].weight, rule.heads[i].bias
    features = h.reshape(len(h), -1)
    logits = features @ weight[:, : features.shape[1]].T + z @ weight[:, features.shape[1] :].T + bias
    return (logits.exp() / logits.exp().sum(1, keepdim=True)) @ u


@NETS
@pytest.mark.parametrize("embedding", [None, 3], ids=["one-hot", "learnt"])
def test_gradients_are_those_of_the_whole_loss(
    make: object, shape: tuple[int, ...], groups: list[list[int]], embedding: int | None
) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape, embedding=embedding, eta=0.3)
    x, y = batch(12, *shape)
    steps = len(groups)
    s = [math.cos(math.pi / 2 * ((steps - t) / steps + 0.008) / 1.008) ** 2 for t in range(steps + 1)]
    draw = torch.Generator()
    draw.set_state(rule.generator.get_state())
    u = rule.embedding[0] if embedding else torch.eye(4, dtype=torch.float64)
    noise = [torch.randn(12, u.shape[1], generator=draw).double() for _ in s]
    z = [s[t] ** 0.5 * u[y] + (1 - s[t]) ** 0.5 * noise[t] for t in range(steps + 1)]
    logits = z[-1] @ rule.head.weight.T + rule.head.bias
    total = -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[range(12), y].mean()
    seen = x.flatten(1) if groups[0][0] else x
    for t, group in enumerate(groups, 1):
        rise = s[t] / (1 - s[t]) - s[t - 1] / (1 - s[t - 1])
        errors = ((guess(rule, group, seen, z[t - 1], u) - u[y]) ** 2).sum(1)
        total = total + 0.3 / 2 * rise * errors.mean()
    names = {p: n for n, p in rule.named_parameters()}
    expected = dict(zip(names.values(), torch.autograd.grad(total, list(names)), strict=True))
    close(copy.deepcopy(rule).step(x, y)["loss"], total.detach())
    found = gradients(rule, x, y)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        close(value, expected[name])


@NETS
def test_predictions_follow_the_means(make: object, shape: tuple[int, ...], groups: list[list[int]]) -> None:
    assert callable(make)
    rule = rule_on(make(), *shape, embedding=3).eval()
    x, _ = batch(12, *shape)
    with torch.no_grad():
        for i, p in enumerate(rule.parameters()):  # biases and the classifier start where a mistake may not show
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    z, u = torch.zeros(12, 3, dtype=torch.float64), rule.embedding[0]
    for step, group in zip(denoising_steps(cosine_signal(len(groups))), groups, strict=True):
        z = step.a * guess(rule, group, x.flatten(1) if groups[0][0] else x, z, u) + step.b * z
    close(rule(x), z @ rule.head.weight.T + rule.head.bias)


@pytest.mark.parametrize(
    ("options", "words"), [({"embedding": 0}, "embedding=0 be 1"), ({"eta": -1.0}, "eta=-1.0 must")]
)
def test_odd_numbers_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rule_on(nets.mlp([6, 8, 7]), 6, **options)


# The promises.


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, c, (n0, n1, n2) = 16, 4, (12, 10, 9)
    rule = NoProp(nets.mlp([n0, n1, n2]), Problem((n0,), c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    first = 2 * n0 * n1  # forward and weight gradient
    entry, second = 2 * n0 * n1, 3 * n1 * n2  # and what goes back into the entry
    heads = 3 * c * (n1 + c) + 3 * c * (n2 + c)  # and what goes back into the block
    classifier = 2 * c * c
    assert trace.operations == 2 * b * (first + entry + second + heads + classifier)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: NoProp(nets.mlp([20] * depth), Problem((20,), 4)).double(), x, y)
    assert max(found) - min(found) < 1000, found  # a number a step; an activation a step would be 5,120 bytes


def test_a_block_has_learnt_before_the_next_one_is_entered() -> None:
    learnt = learnt_when_entered(rule_on(nets.mlp([6, 8, 7, 5]), 6), *batch(12, 6))
    assert learnt == [[False] * 3, [True, False, False], [True, True, False]]


def test_a_step_learns_the_same_whatever_the_steps_before_it_are() -> None:
    x, y = batch(12, 6)
    found = []
    for factor in (1.0, -3.0):
        rule = rule_on(nets.mlp([6, 8, 7, 5]), 6)
        rule.net[0].affine.weight.data.mul_(factor)
        found.append(gradients(rule, x, y))
    for part in ("net.1.", "net.2.", "entries.", "heads.1.", "heads.2.", "head."):
        names = [name for name in found[0] if name.startswith(part)]
        assert names and all(torch.equal(found[0][name], found[1][name]) for name in names)
    assert not torch.equal(found[0]["net.0.affine.weight"], found[1]["net.0.affine.weight"])


def test_frozen_blocks_stay_while_what_is_around_them_learns() -> None:
    net = nets.mlp([6, 8, 7])
    net[1].requires_grad_(False)
    rule = rule_on(net, 6)
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    rule.step(*batch(12, 6))
    same = {name for name, p in rule.named_parameters() if torch.equal(p, before[name])}
    assert same == {"net.1.affine.weight", "net.1.affine.bias"}


def test_reasons_why_not() -> None:
    problem = Problem((6,), 4)
    with pytest.raises(UsageError, match="build the net without classes"):
        NoProp(nets.mlp([6, 8], classes=4), problem)
    with pytest.raises(UsageError, match="a regression has none"):
        NoProp(nets.mlp([6, 8]), Problem((6,), 4, "regression"))
    with pytest.raises(UsageError, match="a block with parameters"):
        NoProp(nn.Sequential(nn.Flatten()), problem)
    with pytest.raises(UsageError, match="leaves sizes open"):
        NoProp(nets.conv((1, 8, 8), [3]), Problem((1, None, None), 4))
