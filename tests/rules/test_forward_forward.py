"""Forward-forward against autograd of its loss on inputs that are written out, and against sums done by hand."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.activity import limited, normalised
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.rules.forward_only.negatives import hard_negatives, uniform_negatives
from steps import Opaque, gradients, peaks

INPUTS, CLASSES, BATCH = 9, 3, 6
STRENGTH, NEUTRAL = 1.5, 0.2
SGD = partial(torch.optim.SGD, lr=0.0)


class Residual(nn.Module):
    """A block that is no `Block`: a linear layer inside, and a way round it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nets.linear(width, width, "lecun", torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.softplus(x + self.inner(x))


def build(net: nn.Sequential | None = None, inputs: int = INPUTS, **options: Any) -> ForwardForward:
    net = nets.mlp([inputs, 8, 7, 5]) if net is None else net
    options = {
        "label": STRENGTH,
        "neutral": NEUTRAL,
        "optimizer": SGD,
        "peer": 0.0,
        "generator": torch.Generator().manual_seed(5),
    } | options
    rule = ForwardForward(net.double(), Problem((inputs,), CLASSES), **options)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for head in rule.heads.values():  # they start at zero, where much is the same that should differ
            head.weight.normal_(generator=generator)
    return rule


def batch(size: int = BATCH, inputs: int = INPUTS) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(size, inputs, generator=g, dtype=torch.float64), torch.randint(CLASSES, (size,), generator=g)


def unit(h: Tensor) -> Tensor:
    return h / h.square().mean(1, keepdim=True).sqrt()


def written(x: Tensor, code: Tensor) -> Tensor:
    """The normalised input with the code over its first entries."""
    return unit(torch.cat([code, x[:, code.size(1) :]], 1))


def one_hot(y: Tensor) -> Tensor:
    return nn.functional.one_hot(y, CLASSES).double()


def drawn(rule: ForwardForward, x: Tensor, y: Tensor) -> Tensor:
    """The negatives that the rule's next step will draw."""
    generator = torch.Generator()
    generator.set_state(rule.generator.get_state())
    if rule.negatives == "uniform":
        return uniform_negatives(y, CLASSES, generator)
    return hard_negatives(rule(x).detach(), y, generator)


def naive_gradients(rule: ForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Autograd of each block's BCE and of the head's cross-entropy, three full inputs, no sharing."""
    wrong = drawn(rule, x, y)
    a = torch.cat([written(x, STRENGTH * one_hot(y)), written(x, STRENGTH * one_hot(wrong))])
    neutral = written(x, torch.full((len(x), CLASSES), NEUTRAL, dtype=torch.float64))
    target = torch.cat([torch.ones(len(x)), torch.zeros(len(x))]).double()
    names = {p: n for n, p in rule.named_parameters()}
    found: dict[str, Tensor] = {}
    features = []
    for i, block in enumerate(rule.net):
        h, quiet = block(a), block(neutral)
        parameters = list(block.parameters())
        if parameters:
            logits = (h.square().sum(1) - rule.thresholds[i]) / rule.temperature
            loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
            found |= zip((names[p] for p in parameters), torch.autograd.grad(loss, parameters), strict=True)
        a, neutral = unit(h).detach(), unit(quiet).detach()
        if i in rule.read:
            features.append(neutral)
    weights = [head.weight for head in rule.heads.values()]
    logits = torch.cat(features, 1) @ torch.cat(weights, 1).T
    loss = nn.functional.cross_entropy(logits, y)
    return found | dict(zip((names[w] for w in weights), torch.autograd.grad(loss, weights), strict=True))


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert expected[name].abs().max() > 1e-6, f"nothing is compared in {name}"
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


# The update.


@pytest.mark.parametrize("negatives", ["hard", "uniform"])
@pytest.mark.parametrize("act", ["relu", "tanh", "leaky-relu", "gelu", "sigmoid"])
def test_a_step_is_the_gradient_of_the_written_losses(act: str, negatives: str) -> None:
    rule = build(nets.mlp([INPUTS, 8, 7, 5], act=act), negatives=negatives, temperature=1.7)
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_normalised_activations_are_differentiated_inside_the_block(bias: bool) -> None:
    rule = build(nets.mlp([INPUTS, 8, 7, 5], norm=True, bias=bias))
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_blocks_that_are_no_blocks_of_ours_learn_too() -> None:
    first = nets.Block(nets.linear(INPUTS, 8, "lecun", torch.Generator().manual_seed(2)), nn.LayerNorm(8), nn.ReLU())
    plain = nets.linear(8, 8, "lecun", torch.Generator().manual_seed(4))
    rule = build(nn.Sequential(first, Residual(8), plain, Residual(8)))
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_one_hidden_block_is_read_itself() -> None:
    rule = build(nets.mlp([INPUTS, 8]))
    assert rule.read == [0] and set(rule.optimizers) == {"blocks.0", "heads.0"}
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)
    assert rule.energy(x).std() > 0


def test_parts_are_one_a_block_and_one_a_slice_from_the_second_block_on() -> None:
    assert list(build().optimizers) == ["blocks.0", "blocks.1", "blocks.2", "heads.1", "heads.2"]


def test_peers_push_units_towards_the_mean_activity_even_where_relu_is_off() -> None:
    rule = build(peer=0.3)
    x, y = batch()
    with torch.no_grad():
        rule.net[0].affine.bias[2] = -100.0  # never on
        for i, width in enumerate((8, 7, 5)):
            rule.get_buffer(f"means_{i}").copy_(torch.linspace(0.1, 0.9, width))
    before = [rule.get_buffer(f"means_{i}").clone() for i in range(3)]
    rule.peer, peer = 0.0, rule.peer
    state = rule.generator.get_state()
    plain = gradients(rule, x, y)
    rule.generator.set_state(state)
    rule.peer = peer
    found = gradients(rule, x, y)
    a = written(x, STRENGTH * one_hot(y))
    for i, block in enumerate(rule.net):
        h = block(a).detach()
        m = 0.9 * before[i] + 0.1 * h.mean(0)
        torch.testing.assert_close(rule.get_buffer(f"means_{i}"), m, rtol=1e-12, atol=1e-12)
        push = 0.3 * (m.mean() - m)
        bias, weight = f"net.{i}.affine.bias", f"net.{i}.affine.weight"
        torch.testing.assert_close(found[bias], plain[bias] - push, rtol=1e-10, atol=1e-12)
        expected = plain[weight] - torch.outer(push, a.mean(0))
        torch.testing.assert_close(found[weight], expected, rtol=1e-10, atol=1e-12)
        a = unit(h)
    assert plain["net.0.affine.bias"][2] == 0
    assert found["net.0.affine.bias"][2] < 0  # descent raises the bias of the unit that is never on


def test_blocks_without_parameters_or_derivative_and_frozen_ones_pass_on() -> None:
    blocks = list(nets.mlp([INPUTS, 8, 7, 6, 5]))
    blocks[2].requires_grad_(False)
    blocks.insert(2, Opaque())
    rule = build(nn.Sequential(*blocks), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert rule.read == [1, 4]
    before = {n: p.detach().clone() for n, p in rule.named_parameters()}
    rule.step(*batch())
    still = {n for n, p in rule.named_parameters() if torch.equal(p, before[n])}
    assert still == {"net.3.affine.weight", "net.3.affine.bias"}


def test_every_blocks_input_has_mean_square_one() -> None:
    rule = build()
    seen: list[Tensor] = []
    for block in list(rule.net)[1:]:
        block.affine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    rule.step(*batch())
    assert len(seen) == 6  # two blocks: once to predict, then with and without a label
    for a in seen:
        torch.testing.assert_close(a.square().mean(1), torch.ones(len(a)).double())
    torch.testing.assert_close(normalised(torch.zeros(2, 3)), torch.zeros(2, 3))


# Predictions.


def test_head_reads_the_neutral_label_and_all_blocks_but_the_first() -> None:
    rule = build()
    x, _ = batch()
    a = written(x, torch.full((len(x), CLASSES), NEUTRAL, dtype=torch.float64))
    logits = torch.zeros(len(x), CLASSES).double()
    for i, block in enumerate(rule.net):
        a = unit(block(a))
        if i:
            logits = logits + a @ rule.heads[str(i)].weight.T
    torch.testing.assert_close(rule.predictors()["head"](x), logits, rtol=1e-10, atol=1e-12)
    changed = x.clone()
    changed[:, :CLASSES] = 7.0  # what the label covers is never seen
    torch.testing.assert_close(rule(changed), logits, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_energy_is_the_goodness_of_one_pass_a_class(act: str) -> None:
    rule = build(nets.mlp([INPUTS, 8, 7, 5], act=act))
    x, _ = batch()
    expected = []
    for label in range(CLASSES):
        a = written(x, STRENGTH * one_hot(torch.full((len(x),), label)))
        goodness = torch.zeros(len(x)).double()
        for i, block in enumerate(rule.net):
            h = block(a)
            goodness = goodness + (h.square().sum(1) if i else 0)
            a = unit(h)
        expected.append(goodness)
    torch.testing.assert_close(rule.predictors()["energy"](x), torch.stack(expected, 1), rtol=1e-10, atol=1e-12)


def test_energy_multiplies_the_inputs_once() -> None:
    rule = build()
    x, _ = batch()
    with Trace({}) as trace:
        rule.energy(x)
    assert trace.operations == 2 * ((BATCH + CLASSES + 1) * INPUTS * 8 + BATCH * CLASSES * (8 * 7 + 7 * 5))


def test_images_are_flattened_before_a_net_that_opens_with_a_flatten() -> None:
    blocks = list(nets.mlp([INPUTS, 8, 7]))
    net = nn.Sequential(nets.Block(pool=nn.Flatten()), *blocks).double()
    rule = ForwardForward(net, Problem((1, 3, 3), CLASSES), optimizer=partial(torch.optim.SGD, lr=0.1))
    x, y = batch()
    rule.step(x.view(-1, 1, 3, 3), y)
    other = ForwardForward(
        nets.mlp([INPUTS, 8, 7]).double(), Problem((INPUTS,), CLASSES), optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    other.step(x, y)
    assert torch.equal(rule(x.view(-1, 1, 3, 3)), other(x))


# Negatives.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_negatives_are_never_the_true_class_even_where_the_head_is_certain(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(10, (5000,), generator=generator)
    certain = 1e4 * nn.functional.one_hot(y, 10).to(dtype)
    assert torch.equal(certain.softmax(1), nn.functional.one_hot(y, 10).to(dtype))  # no mass is left for the others
    for logits in (certain, certain * 1e30, torch.zeros_like(certain)):
        wrong = hard_negatives(logits, y, generator)
        assert not bool((wrong == y).any())
        assert set(wrong.tolist()) == set(range(10))


def test_hard_negatives_follow_the_heads_probabilities() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    y = torch.zeros(40000, dtype=torch.int64)
    wrong = hard_negatives(p.log().expand(40000, 4), y, torch.Generator().manual_seed(0))
    found = wrong.bincount(minlength=4) / len(y)
    torch.testing.assert_close(found, torch.tensor([0.0, 1 / 2, 1 / 3, 1 / 6]), rtol=0, atol=0.01)


def test_uniform_negatives_are_every_class_but_the_true_one() -> None:
    y = torch.arange(4).repeat(5000)
    wrong = uniform_negatives(y, 4, torch.Generator().manual_seed(0))
    counts = torch.zeros(4, 4).index_put((y, wrong), torch.ones(len(y)), accumulate=True) / 5000
    torch.testing.assert_close(counts, (1 - torch.eye(4)) / 3, rtol=0, atol=0.03)
    assert counts.diagonal().sum() == 0


def test_hard_negatives_come_from_the_heads_prediction() -> None:
    rule = build()
    x, y = batch()
    with torch.no_grad():
        certain = 1 + int(y[0]) - 3 * (int(y[0]) == 2)
        rule.heads["2"].weight.zero_()[certain] = 1e3  # activities after ReLU are positive: one class for all
    wrong = drawn(rule, x, y)
    assert bool((wrong[y != certain] == certain).all())
    expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    close({n: g for n, g in found.items() if n.startswith("net")}, {n: g for n, g in expected.items() if n[0] == "n"})


# Cost.


@pytest.mark.parametrize("negatives", ["hard", "uniform"])
def test_operations_equal_a_count_by_hand(negatives: str) -> None:
    n0, n1, n2, n3 = 40, 32, 24, 16
    rule = build(nets.mlp([n0, n1, n2, n3]), inputs=n0, negatives=negatives)
    x, y = batch(inputs=n0)
    with Trace({}) as trace:
        rule.step(x, y)
    # The first layer sees each input once and each code once: forward (again after the update) and weight gradient.
    first = {"hard": 1 + 1, "uniform": 2 + 1}[negatives] * (BATCH + CLASSES + 1) * n0 * n1
    deeper = 4 + 2  # four streams forward, positives and negatives in the weight gradient
    heads = 1 + 1
    count = deeper * (n1 * n2 + n2 * n3) + heads * CLASSES * (n2 + n3)
    assert trace.operations == 2 * (first + BATCH * count)


@pytest.mark.parametrize(("negatives", "act"), [("hard", "relu"), ("uniform", "tanh"), ("hard", "gelu")])
def test_peak_memory_of_a_step_is_the_same_at_any_depth(negatives: str, act: str) -> None:
    def rule(depth: int) -> ForwardForward:
        return build(nets.mlp([INPUTS] + [16] * depth, act=act), negatives=negatives, peer=0.03)

    found = peaks(rule, *batch(32))
    assert len(set(found)) == 1, found


def test_with_uniform_negatives_the_first_block_learns_before_the_next_is_read() -> None:
    x, y = batch()
    for negatives, waits in (("uniform", False), ("hard", True)):
        rule = build(negatives=negatives, optimizer=partial(torch.optim.SGD, lr=0.1))
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        accesses = [(a.kind, a.parameter) for a in trace.accesses]
        early = accesses[: accesses.index(("write", "net.0.affine.weight"))]
        assert any(name.startswith(("net.1", "net.2", "heads")) for _, name in early) == waits
        assert rule.claims.forward_lock == waits
        assert rule.claims.later_blocks == ("prediction" if waits else "none")


# It learns, and says what it cannot do.


@pytest.mark.parametrize(("negatives", "act"), [("hard", "relu"), ("uniform", "tanh")])
def test_it_learns_clusters(act: str, negatives: str) -> None:
    g = torch.Generator().manual_seed(0)
    centres = torch.rand(CLASSES, 24, generator=g)
    y = torch.randint(CLASSES, (600,), generator=g)
    x = centres[y] + 0.15 * torch.randn(600, 24, generator=g)
    rule = ForwardForward(nets.mlp([24, 32, 32], act=act), Problem((24,), CLASSES), negatives=negatives)
    for _ in range(10):
        for i in range(0, 600, 50):
            rule.step(x[i : i + 50], y[i : i + 50])
    for name, predict in rule.predictors().items():
        assert (predict(x).argmax(1) == y).float().mean() > 0.95, name


def test_threshold_is_the_width_for_relu_and_within_range_for_bounded_activations() -> None:
    assert build().thresholds == {0: 8.0, 1: 7.0, 2: 5.0}
    assert build(nets.mlp([INPUTS, 8, 7], act="tanh")).thresholds == {0: 4.0, 1: 3.5}
    assert build(threshold=0.25).thresholds == {0: 2.0, 1: 1.75, 2: 1.25}
    assert limited(nets.mlp([4, 4], norm=True)[0]) and not limited(nets.mlp([4, 4])[0])


@pytest.mark.parametrize(
    ("net", "problem", "reason"),
    [
        (nets.mlp([9, 8], classes=3), Problem((9,), 3), "ends in an output block"),
        (nets.conv((3, 8, 8), [4]), Problem((1, 8, 8), 3), "takes 3 features"),
        (nets.conv((1, 8, 8), [4]), Problem((64,), 3), "does not take inputs of shape"),
        (nets.mlp([3, 8]), Problem((3,), 3), "give more features"),
        (nets.mlp([9, 8]), Problem((12,), 3), "takes 9 features"),
        (nets.mlp([9, 8]), Problem((9,), 3, "regression"), "two classes or more"),
        (nets.mlp([9, 8]), Problem((9,), 1), "two classes or more"),
        (nets.mlp([9, 8]).requires_grad_(False), Problem((9,), 3), "trainable parameters"),
        (nn.Sequential(nn.ReLU(), *nets.mlp([9, 8])), Problem((9,), 3), "must begin with a linear or conv"),
        (nn.Sequential(*nets.mlp([9, 8]), nets.Block(norm=nn.BatchNorm1d(8))), Problem((9,), 3), "batch statistics"),
    ],
)
def test_nets_that_it_cannot_train_are_refused_with_the_reason(net: Any, problem: Problem, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ForwardForward(net, problem)


@pytest.mark.parametrize("options", [{"negatives": "soft"}, {"temperature": 0.0}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        build(**options)
