"""Unsupervised forward-forward against autograd of its losses, written out without sharing or order."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.activity import normalised
from altprop.rules.forward_only.goodness import Sparse
from altprop.rules.forward_only.negatives import blurred, hybrids
from altprop.rules.forward_only.unsupervised_forward_forward import (
    UnsupervisedForwardForward,
    contrast_loss,
    image_shape,
)
from steps import gradients, peaks

INPUTS, CLASSES, BATCH = 16, 3, 6
SGD = partial(torch.optim.SGD, lr=0.0)


def build(net: nn.Sequential | None = None, shape: tuple[int, ...] = (INPUTS,), **options: Any) -> Any:
    net = nets.mlp([INPUTS, 8, 7, 5]) if net is None else net
    options = {"optimizer": SGD, "generator": torch.Generator().manual_seed(5)} | options
    rule = UnsupervisedForwardForward(net.double(), Problem(shape, CLASSES), **options)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for head in rule.heads.values():  # they start at zero, where much is the same that should differ
            head.weight.normal_(generator=generator)
    return rule


def batch(size: int = BATCH, shape: tuple[int, ...] = (INPUTS,)) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(size, *shape, generator=g, dtype=torch.float64), torch.randint(CLASSES, (size,), generator=g)


def unit(h: Tensor) -> Tensor:
    return h / h.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (h.dim() - 1))


def drawn(rule: UnsupervisedForwardForward, x: Tensor) -> Tensor:
    """The negatives that the rule's next step will draw."""
    if rule.negatives == "blurred":
        return blurred(x, 4, shape=rule.image)
    generator = torch.Generator()
    generator.set_state(rule.generator.get_state())
    return hybrids(x, generator, blurs=rule.blurs, shape=rule.image)


def naive_gradients(rule: UnsupervisedForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Autograd of each block's BCE by sum of squares, images and negatives apart, and of the softmax's cross-entropy.

    For rules whose blocks have a rate of 0: the softmax sees what the blocks have become.
    """
    names = {p: n for n, p in rule.named_parameters()}
    positive, negative = unit(x), unit(drawn(rule, x))
    logits = torch.zeros(len(x), CLASSES, dtype=torch.float64)
    found: dict[str, Tensor] = {}
    for i, block in enumerate(rule.net):
        h, g = block(positive), block(negative)
        believes = [(v.flatten(1).square().sum(1) - rule.thresholds[i]) / rule.temperature for v in (h, g)]
        p, q = (torch.sigmoid(v) for v in believes)
        loss = -(p.log().sum() + (1 - q).log().sum()) / (2 * len(x))
        parameters = list(block.parameters())
        found |= zip((names[p] for p in parameters), torch.autograd.grad(loss, parameters), strict=True)
        positive, negative = unit(h).detach(), unit(g).detach()
        if i in rule.read:
            weight = rule.heads[str(i)].weight
            logits = logits + positive.flatten(1) @ weight.T
    weights = [rule.heads[str(i)].weight for i in rule.read]
    chosen = logits.log_softmax(1)[torch.arange(len(y)), y]
    found |= zip((names[w] for w in weights), torch.autograd.grad(-chosen.mean(), weights), strict=True)
    return found


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert expected[name].abs().max() > 1e-6, f"nothing is compared in {name}"
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


# The update.


@pytest.mark.parametrize("negatives", ["hybrid", "blurred"])
@pytest.mark.parametrize("act", ["relu", "tanh", "gelu"])
def test_a_step_is_the_gradient_of_the_written_losses(act: str, negatives: str) -> None:
    rule = build(nets.mlp([INPUTS, 8, 7, 5], act=act), negatives=negatives, temperature=1.7, threshold=0.6)
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_convolutional_blocks_learn_alike() -> None:
    rule = build(nets.conv((1, 8, 8), [3, 4]), (1, 8, 8), temperature=5.0)
    assert rule.image == (1, 8, 8)
    x, y = batch(shape=(1, 8, 8))
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_other_goodness_changes_the_blocks_and_leaves_the_softmax() -> None:
    x, y = batch()
    plain, sparse = gradients(build(), x, y), gradients(build(goodness=Sparse(0.4)), x, y)
    same = {name for name in plain if torch.equal(plain[name], sparse[name])}
    assert same == {"heads.1.weight", "heads.2.weight"}


def test_labels_teach_the_softmax_and_nothing_else() -> None:
    x, y = batch()
    found, other, silent = gradients(build(), x, y), gradients(build(), x, (y + 1) % 3), gradients(build(), x, None)
    heads = {"heads.1.weight", "heads.2.weight"}
    assert set(found) - set(silent) == heads
    assert {n for n in found if not torch.equal(found[n], other[n])} == heads
    close(silent, {n: g for n, g in found.items() if n not in heads})


def test_peers_push_units_towards_the_mean_activity_even_where_relu_is_off() -> None:
    plain, rule = build(), build(peer=0.3)
    x, y = batch()
    with torch.no_grad():
        for one in (plain, rule):
            one.net[0].affine.bias[2] = -100.0  # never on
    before = gradients(plain, x, y)
    found = gradients(rule, x, y)
    a = unit(x)
    m = 0.9 * 0.5 + 0.1 * rule.net[0](a).detach().mean(0)
    torch.testing.assert_close(rule.get_buffer("means_0"), m, rtol=1e-12, atol=1e-12)
    push = 0.3 * (m.mean() - m)
    expected = {
        "net.0.affine.bias": before["net.0.affine.bias"] - push,
        "net.0.affine.weight": before["net.0.affine.weight"] - torch.outer(push, a.mean(0)),
    }
    close({n: found[n] for n in expected}, expected)
    assert before["net.0.affine.bias"][2] == 0
    assert found["net.0.affine.bias"][2] < 0  # descent raises the bias of the unit that is never on


def test_after_settling_only_the_softmax_learns_and_half_the_rows_are_spared() -> None:
    rule = build(settle=0.5, schedule=lambda progress: 1 - progress)
    x, y = batch()
    assert (rule.progress_of("blocks.0"), rule.progress_of("heads.1")) == (0.0, 0.0)
    rule.progress = 0.25
    assert (rule.progress_of("blocks.0"), rule.progress_of("heads.1")) == (0.5, 0.25)
    rule.progress = 0.5
    assert rule.progress_of("blocks.0") == 1.0
    rule.step(x, y)
    with Trace({}) as trace:
        found = gradients(rule, x, y)
    assert set(found) == {"heads.1.weight", "heads.2.weight"}
    assert trace.operations == 2 * BATCH * (2 * (INPUTS * 8 + 8 * 7 + 7 * 5) + 2 * CLASSES * (7 + 5))


def test_blocks_without_parameters_and_frozen_ones_pass_on() -> None:
    blocks = list(nets.mlp([INPUTS, 8, 7, 6, 5]))
    blocks[2].requires_grad_(False)
    blocks.insert(1, nn.Hardtanh())
    rule = build(nn.Sequential(*blocks), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert rule.learners == [0, 2, 4] and rule.read == [2, 4]
    before = {n: p.detach().clone() for n, p in rule.named_parameters()}
    rule.step(*batch())
    still = {n for n, p in rule.named_parameters() if torch.equal(p, before[n])}
    assert still == {"net.3.affine.weight", "net.3.affine.bias"}


def test_one_block_is_read_itself() -> None:
    rule = build(nets.mlp([INPUTS, 8]))
    assert rule.read == [0] and set(rule.optimizers) == {"blocks.0", "heads.0"}


def test_the_softmax_can_read_the_first_block_too() -> None:
    rule = build(skip_first=False)
    assert rule.read == [0, 1, 2]
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


# Predictions.


def test_the_softmax_reads_all_blocks_but_the_first() -> None:
    rule = build()
    x, _ = batch()
    a, logits = unit(x), torch.zeros(len(x), CLASSES).double()
    for i, block in enumerate(rule.net):
        a = unit(block(a))
        if i:
            logits = logits + a @ rule.heads[str(i)].weight.T
    torch.testing.assert_close(rule(x), logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rule(3 * x), logits, rtol=1e-10, atol=1e-12)  # only the direction counts
    assert torch.equal(normalised(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_excess_is_goodness_above_the_threshold() -> None:
    rule = build()
    x, _ = batch()
    h = rule.net[0](unit(x))
    found = rule.excess(x)
    assert list(found) == [0, 1, 2]
    torch.testing.assert_close(found[0], h.square().sum(1, keepdim=True) - 8.0, rtol=1e-10, atol=1e-12)


# Cost.


def test_operations_equal_a_count_by_hand() -> None:
    rule = build(nets.mlp([INPUTS, 8, 7, 5]), negatives="hybrid")
    x, y = batch()
    with Trace({}) as negatives:
        hybrids(x, torch.Generator().manual_seed(0), blurs=rule.blurs, shape=rule.image)
    with Trace({}) as trace:
        rule.step(x, y)
    blocks = 6 * (INPUTS * 8 + 8 * 7 + 7 * 5)  # both kinds forward and for the weight gradient, images twice more
    heads = 2 * CLASSES * (7 + 5)  # positives: logits and weight gradient
    assert trace.operations == 2 * BATCH * (blocks + heads) + negatives.operations


@pytest.mark.parametrize("peer", [0.0, 0.03])
def test_peak_memory_of_a_step_is_the_same_at_any_depth(peer: float) -> None:
    found = peaks(lambda depth: build(nets.mlp([INPUTS] + [16] * depth), peer=peer), *batch(32))
    assert len(set(found)) == 1, found


def test_a_block_has_learnt_before_the_next_one_is_read_and_the_softmax_comes_last() -> None:
    rule = build(optimizer=partial(torch.optim.SGD, lr=0.1))
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(*batch())
    order = [a.parameter.split(".")[:2] for a in trace.accesses]
    last_write = max(k for k, a in enumerate(trace.accesses) if a.kind == "write" and a.parameter.startswith("net"))
    taught = [int(place) for kind, place in order[: last_write + 1]]
    assert taught == sorted(taught) and set(taught) == {0, 1, 2}
    assert all(kind == "net" for kind, _ in order[: last_write + 1])
    assert {kind for kind, _ in order[last_write + 1 :]} == {"net", "heads"}


def test_the_softmax_learns_from_what_the_blocks_have_become() -> None:
    rule = build(optimizer={"blocks": partial(torch.optim.SGD, lr=0.1), "heads": SGD})
    x, y = batch()
    found = gradients(rule, x, y)
    rest = build(rule.net, settle=0.5)
    rest.progress = 0.5
    with torch.no_grad():
        for place, head in rest.heads.items():
            head.weight.copy_(rule.heads[place].weight)
    expected = gradients(rest, x, y)
    close({name: found[name] for name in expected}, expected)


# It learns, and says what it cannot do.


@pytest.mark.parametrize("negatives", ["hybrid", "blurred"])
def test_blocks_learn_to_tell_images_from_negatives_and_the_softmax_learns_classes(negatives: str) -> None:
    g = torch.Generator().manual_seed(0)
    templates = torch.rand(CLASSES, 1, 8, 8, generator=g).round()
    y = torch.randint(CLASSES, (600,), generator=g)
    x = (templates[y] + 0.1 * torch.randn(600, 1, 8, 8, generator=g)).flatten(1)
    rule = UnsupervisedForwardForward(nets.mlp([64, 48, 48]), Problem((64,), CLASSES), negatives=negatives)
    first = float(rule.step(x[:50], y[:50])["loss"])
    for _ in range(12):
        for i in range(0, 600, 50):
            loss = float(rule.step(x[i : i + 50], y[i : i + 50])["loss"])
    assert loss < 0.5 * first
    assert (rule(x).argmax(1) == y).float().mean() > 0.95
    with torch.no_grad():
        real, fake = rule.excess(x)[0], rule.excess(rule.negatives_of(x))[0]
    assert (real > 0).float().mean() > 0.7 and (fake < 0).float().mean() > 0.65


def test_the_contrast_is_binary_cross_entropy() -> None:
    s = torch.linspace(-3, 4, 8).view(8, 1)
    target = torch.tensor([1.0] * 4 + [0.0] * 4).view(8, 1)
    torch.testing.assert_close(contrast_loss(s), nn.functional.binary_cross_entropy_with_logits(s, target))


@pytest.mark.parametrize(
    ("inputs", "image", "found"),
    [
        ((784,), None, (1, 28, 28)),
        ((3072,), None, (3, 32, 32)),
        ((24,), None, (1, 1, 24)),
        ((24,), (2, 3, 4), (2, 3, 4)),
        ((3, 4, 5), None, (3, 4, 5)),
        ((3, 4, 5), (3, 4, 5), (3, 4, 5)),
    ],
)
def test_flat_inputs_are_images(inputs: tuple[int, ...], image: Any, found: tuple[int, int, int]) -> None:
    assert image_shape(inputs, image) == found


@pytest.mark.parametrize(("inputs", "image"), [((24,), (1, 5, 5)), ((3, 4, 5), (1, 6, 10))])
def test_images_of_another_size_are_refused(inputs: tuple[int, ...], image: Any) -> None:
    with pytest.raises(UsageError, match="does not fit inputs"):
        image_shape(inputs, image)


def test_a_batch_of_one_has_a_negative_only_if_it_is_blurred() -> None:
    x, y = batch(1)
    rule = build(optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {n: p.detach().clone() for n, p in rule.named_parameters()}
    with pytest.raises(UsageError, match="batches of two or more"):
        rule.step(x, y)
    assert all(torch.equal(p, before[n]) for n, p in rule.named_parameters())
    assert not rule.claims.batch_of_one
    blurring = build(negatives="blurred")
    assert blurring.claims.batch_of_one and torch.isfinite(blurring.step(x, y)["loss"])


def test_thresholds_are_the_width_for_relu_and_within_range_for_bounded_activations() -> None:
    assert build().thresholds == {0: 8.0, 1: 7.0, 2: 5.0}
    assert build(nets.mlp([INPUTS, 8, 7], act="tanh")).thresholds == {0: 4.0, 1: 3.5}
    assert build(nets.mlp([INPUTS, 8, 7], act="tanh"), threshold=0.25).thresholds == {0: 2.0, 1: 1.75}


@pytest.mark.parametrize(
    ("net", "problem", "reason"),
    [
        (nets.mlp([9, 8], classes=3), Problem((9,), 3), "ends in an output block"),
        (nets.mlp([9, 8]), Problem((9,), 3, "regression"), "two classes or more"),
        (nets.mlp([9, 8]), Problem((9,), 1), "two classes or more"),
        (nets.mlp([9, 8]).requires_grad_(False), Problem((9,), 3), "trainable parameters"),
        (nn.Sequential(*nets.mlp([9, 8]), nets.Block(norm=nn.BatchNorm1d(8))), Problem((9,), 3), "batch statistics"),
        (nets.conv((1, 8, 8), [4]), Problem((1, None, None), 3), "need the size of the images"),
    ],
)
def test_nets_that_it_cannot_train_are_refused_with_the_reason(net: Any, problem: Problem, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        UnsupervisedForwardForward(net, problem)


@pytest.mark.parametrize(
    "options", [{"negatives": "wrong"}, {"temperature": 0.0}, {"settle": 0.0}, {"goodness": "regions"}]
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        build(**options)
