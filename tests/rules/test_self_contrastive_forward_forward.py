"""Self-contrastive forward-forward against autograd of its losses on pairs that are written out, side by side."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.self_contrastive_forward_forward import SelfContrastiveForwardForward, standardise
from steps import gradients, peaks

CLASSES, BATCH = 3, 6
SGD = partial(torch.optim.SGD, lr=0.0)
IMAGE = (2, 8, 8)


def build(net: nn.Sequential, shape: tuple[int, ...] = (9,), **options: object) -> SelfContrastiveForwardForward:
    options = {"optimizer": SGD, "generator": torch.Generator().manual_seed(5)} | options
    rule = SelfContrastiveForwardForward(net.double(), Problem(shape, CLASSES), **options)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in rule.parameters():  # no bias and no slice at zero, where much is the same that should differ
            if parameter.dim() == 1 or not parameter.any():
                parameter.normal_(generator=generator).mul_(0.3)
    return rule


def batch(shape: tuple[int, ...] = (9,), size: int = BATCH) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(size, *shape, generator=g, dtype=torch.float64), torch.randint(CLASSES, (size,), generator=g)


def normal(h: Tensor) -> Tensor:
    flat = h.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True, correction=0)).view_as(h)


def twice(layer: nn.Module, pair: Tensor) -> Tensor:
    """The response to two inputs that lie side by side, by one layer with the weights side by side, too."""
    weight = torch.cat([layer.weight, layer.weight], dim=1)
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(pair, weight, 2 * layer.bias)
    return nn.functional.conv2d(pair, weight, 2 * layer.bias, padding=layer.padding)


def naive_gradients(rule: SelfContrastiveForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Pair by pair: concatenated inputs, logistic losses as logarithms, one softmax after the other."""
    generator = torch.Generator()
    generator.set_state(rule.generator.get_state())
    shift = int(torch.randint(1, len(x), (), generator=generator))
    other = [(i - shift) % len(x) for i in range(len(x))]
    names = {p: n for n, p in rule.named_parameters()}
    found: dict[str, Tensor] = {}
    a, logits = normal(x), torch.zeros(len(x), CLASSES, dtype=torch.float64)
    for i, block in enumerate(rule.net):
        if str(i) not in rule.heads:
            a = block(a)
            continue
        theta1, theta2 = rule.thresholds[i]
        losses = []
        for n in range(len(x)):
            for partner in (n, other[n]):
                pair = torch.cat([a[n : n + 1], a[partner : partner + 1]], dim=1)
                g = block.activation(twice(block.affine, pair)).pow(2).sum(1) / block.affine.weight.size(0)
                if partner == n:
                    losses.append(torch.log(1 + torch.exp(theta1 - g)).mean() + rule.penalty * g.mean())
                else:
                    losses.append(torch.log(1 + torch.exp(g - theta2)).mean())
        parameters = list(block.parameters())
        grads = torch.autograd.grad(torch.stack(losses).sum() / len(x), parameters)
        found |= {names[p]: grad for p, grad in zip(parameters, grads, strict=True)}
        a = normal(block(a)).detach()
        weight = rule.heads[str(i)].weight
        logits = logits.detach() + a.flatten(1) @ weight.T
        found[names[weight]] = torch.autograd.grad(nn.functional.cross_entropy(logits, y), weight)[0]
    return found


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert expected[name].abs().max() > 1e-6, f"nothing is compared in {name}"
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


# The update.


def test_thresholds_can_be_reached_behind_a_layer_norm() -> None:
    rule = build(nets.mlp([9, 8, 7], norm=True))
    assert list(rule.thresholds.values()) == [(0.5, 0.5)] * 2
    assert list(build(nets.mlp([9, 8])).thresholds.values()) == [(8.0, 6.0)]


@pytest.mark.parametrize("act", ["relu", "tanh", "gelu", "sigmoid"])
def test_a_step_is_the_gradient_of_the_losses_on_written_pairs(act: str) -> None:
    rule = build(nets.mlp([9, 8, 7, 5], act=act), thresholds=(0.7, 0.4), penalty=0.1)
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_so_it_is_in_convolutional_nets_place_by_place() -> None:
    rule = build(nets.conv(IMAGE, [4, 5, 3]), IMAGE, thresholds=(2.0, 1.0))
    x, y = batch(IMAGE)
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_labels_move_the_softmax_alone() -> None:
    x, y = batch()
    found = [gradients(build(nets.mlp([9, 8, 7])), x, labels) for labels in (y, (y + 1) % CLASSES, None)]
    heads = {name for name in found[0] if name.startswith("heads")}
    assert set(found[2]) == set(found[0]) - heads
    for name, gradient in found[2].items():
        assert torch.equal(gradient, found[0][name]) and torch.equal(gradient, found[1][name])
    assert all(not torch.equal(found[0][name], found[1][name]) for name in heads)


def test_pairs_of_equal_images_are_no_negatives() -> None:
    """Two images, one of them twice: with a shift of 1 one of three pairs is a positive, with 2 another one."""
    x, y = batch(size=2)
    x = torch.cat([x, x[:1]])
    y = torch.cat([y, y[:1]])
    rule = build(nets.mlp([9, 8]), thresholds=(-50.0, -50.0), penalty=0.0)
    a = normal(x)
    z = rule.net[0].affine(a)
    loss = sum(torch.relu(z[i] + z[1]).square().mean() for i in (0, 2)) / 3
    expected = torch.autograd.grad(loss, rule.net[0].affine.weight)[0]
    torch.testing.assert_close(gradients(rule, x, y)["net.0.affine.weight"], expected)


def test_the_logits_are_the_slices_sum() -> None:
    rule = build(nets.conv(IMAGE, [4, 5]), IMAGE)
    x, _ = batch(IMAGE)
    expected, a = 0.0, normal(x)
    for i, block in enumerate(rule.net):
        a = normal(block(a))
        expected = expected + a.flatten(1) @ rule.heads[str(i)].weight.T
    torch.testing.assert_close(rule(x), expected)
    torch.testing.assert_close(rule(3 * x + 1), expected)  # images are standardised one by one
    torch.testing.assert_close(standardise(torch.full((2, 5), 3.0)), torch.zeros(2, 5))


def test_pairs_come_apart() -> None:
    """Positives rise above the first threshold, negatives fall below the second."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(200, 9, generator=g)
    net = nets.mlp([9, 30, 30])
    rule = SelfContrastiveForwardForward(net, Problem((9,), CLASSES), thresholds=(6.0, 6.0))
    first = float(rule.step(x)["loss"])
    for _ in range(200):
        last = float(rule.step(x)["loss"])
    assert last < 0.5 * first


# Costs.


def test_operations_are_the_hand_count() -> None:
    rule = build(nets.mlp([9, 8, 7]))
    x, y = batch()
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    products = 9 * 8 + 8 * 7 + (8 + 7) * CLASSES  # each once forward, once for its gradient
    assert trace.operations == 2 * 2 * BATCH * products
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x)
    assert trace.operations == 2 * 2 * BATCH * (9 * 8 + 8 * 7)


def test_memory_is_flat_in_depth() -> None:
    x, y = batch()
    found = peaks(lambda depth: build(nets.mlp([9] * (depth + 1))), x, y)
    assert len(set(found)) == 1, found


# Nets it serves, and refusals.


def test_frozen_blocks_stay_and_are_read_and_others_are_passed_through() -> None:
    net = nets.mlp([9, 8, 8, 7])
    net[1].requires_grad_(False)
    net.insert(1, nn.Dropout(0.0))
    rule = build(net)
    found = gradients(rule, *batch())
    assert {name.split(".affine")[0] for name in found} == {
        "net.0",
        "net.3",
        "heads.0.weight",
        "heads.2.weight",
        "heads.3.weight",
    }


def test_locally_connected_blocks_learn() -> None:
    rule = build(nets.local((1, 12, 12), [(4, 5, 3), (6, 2, 1)]), (1, 12, 12))
    assert any(name.startswith("net") for name in gradients(rule, *batch((1, 12, 12))))


@pytest.mark.parametrize(
    ("net", "problem", "words"),
    [
        (nets.mlp([9, 8], classes=3), Problem((9,), 3), "ends in an output block"),
        (nets.mlp([9, 8]), Problem((9,), 3, "regression"), "two classes or more"),
        (nets.mlp([9, 8]).requires_grad_(False), Problem((9,), 3), "no block has trainable"),
        (nn.Sequential(nets.Block(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.ReLU())), Problem((9,), 3), "would mix"),
        (nn.Sequential(nn.Sequential(nn.Linear(9, 8), nn.ReLU())), Problem((9,), 3), "block 0 learns but does not"),
    ],
)
def test_nets_that_it_cannot_train_are_refused(net: nn.Sequential, problem: Problem, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SelfContrastiveForwardForward(net, problem)


def test_batches_without_a_pair_are_refused() -> None:
    rule = build(nets.mlp([9, 8]))
    x, y = batch()
    with pytest.raises(UsageError, match="a batch of one image"):
        rule.step(x[:1], y[:1])
    with pytest.raises(UsageError, match="all images of the batch are equal"):
        rule.step(x[:1].expand(4, 9), y[:4])
    rule.step(x[:1].expand(4, 9) + torch.eye(4, 9, dtype=torch.float64)[[0, 1, 0, 1]], y[:4])


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(UsageError, match="must not be negative"):
        build(nets.mlp([9, 8]), penalty=-1.0)
