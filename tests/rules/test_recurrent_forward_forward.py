"""Recurrent forward-forward against autograd of its losses written out one sample, label and iteration at a time."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.negatives import hard_negatives, uniform_negatives
from altprop.rules.forward_only.recurrent_forward_forward import RecurrentForwardForward, normalise
from steps import gradients

INPUTS, CLASSES, BATCH = 9, 3, 6
STILL = partial(torch.optim.SGD, lr=0.0)


class Opaque(nn.Module):
    """Rounds, has no derivative, and mixes no rows."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 2
        rounded: Tensor = _Round.apply(x)
        return rounded


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("a derivative was taken through a block that has none")


def build(net: nn.Sequential | None = None, inputs: int = INPUTS, **options: Any) -> RecurrentForwardForward:
    net = nets.mlp([inputs, 8, 7, 5]) if net is None else net
    options = {"optimizer": STILL, "peer": 0.0, "generator": torch.Generator().manual_seed(5)} | options
    rule = RecurrentForwardForward(net.double(), Problem((inputs,), CLASSES), **options)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for head in rule.heads.values():  # they start at zero, where much is the same that should differ
            head.weight.normal_(generator=generator)
    return rule


def batch(size: int = BATCH, inputs: int = INPUTS) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(size, inputs, generator=g, dtype=torch.float64), torch.randint(CLASSES, (size,), generator=g)


def unit(h: Tensor) -> Tensor:
    return h / h.square().mean().sqrt()


def drawn(rule: RecurrentForwardForward, x: Tensor, y: Tensor) -> Tensor:
    """The negatives that the rule's next step will draw."""
    generator = torch.Generator()
    generator.set_state(rule.generator.get_state())
    if rule.negatives == "uniform":
        return uniform_negatives(y, CLASSES, generator)
    return hard_negatives(rule.head(x).detach(), y, generator)


def learners(rule: RecurrentForwardForward) -> list[int]:
    """Places of the blocks with weights."""
    return [i for i, block in enumerate(rule.net) if any(True for _ in block.parameters())]


def above(rule: RecurrentForwardForward, place: int, sender: Tensor) -> Tensor:
    """What comes down into a block."""
    return rule.downs[str(place)].weight @ sender


def up(rule: RecurrentForwardForward, place: int, a: Tensor) -> Tensor:
    """The state of the learner below (or the image), through what lies between, into the linear layer."""
    between = []
    for i in range(place - 1, -1, -1):
        if i in learners(rule):
            break
        between.insert(0, rule.net[i])
    for block in between:
        a = block(a.unsqueeze(0))[0]
    layer = rule.net[place].affine
    return layer.weight @ a + (layer.bias if layer.bias is not None else 0)


def tail(rule: RecurrentForwardForward, place: int, z: Tensor) -> Tensor:
    block = rule.net[place]
    for part in (block.norm, block.activation):
        z = z if part is None else part(z.unsqueeze(0))[0]
    return z


def relaxation(rule: RecurrentForwardForward, x: Tensor, label: int, iterations: int) -> list[list[Tensor]]:
    """One sample's states h, layer by layer, at iterations 0, 1, ...; each with a graph to its own weights only."""
    places = learners(rule)
    code = torch.zeros(CLASSES, dtype=torch.float64)
    code[label] = rule.label * CLASSES**0.5
    start: list[Tensor] = []
    for place in places:
        start.append(tail(rule, place, up(rule, place, unit(start[-1] if start else x).detach())))
    history = [start]
    for _ in range(iterations):
        old = [h.detach() for h in history[-1]]
        new = []
        for i, place in enumerate(places):
            sender = unit(old[i + 1]) if i + 1 < len(places) else code
            z = up(rule, place, unit(old[i - 1] if i else x)) + above(rule, place, sender)
            new.append(rule.damping * old[i] + (1 - rule.damping) * tail(rule, place, z))
        history.append(new)
    return history


def naive_gradients(rule: RecurrentForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Autograd of every layer's BCE, a sample, a label and an iteration at a time, and of the head's cross-entropy."""
    wrong = drawn(rule, x, y)
    loss = torch.zeros((), dtype=torch.float64)
    for sample, right, other in zip(x, y.tolist(), wrong.tolist(), strict=True):
        for label, target in ((right, 1.0), (other, 0.0)):
            for states in relaxation(rule, sample, label, rule.iterations)[1:]:
                for h, theta in zip(states, rule.thresholds, strict=True):
                    logit = (h.square().sum() - theta) / rule.temperature
                    p = nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(target).double())
                    loss = loss + p / (2 * len(x) * rule.iterations)
    starts = [relaxation(rule, sample, 0, 0)[0] for sample in x]
    features = [torch.stack([unit(start[i]).detach() for start in starts]) for i in range(len(learners(rule)))]
    logits = torch.stack([a @ rule.heads[str(i)].weight.T for a, i in zip(features, learners(rule), strict=True)])
    loss = loss + nn.functional.cross_entropy(logits.sum(0), y)
    parameters = {n: p for n, p in rule.named_parameters() if p.requires_grad}
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in expected:
        assert expected[name].abs().max() > 1e-6, f"nothing is compared in {name}"
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


# The update.


@pytest.mark.parametrize(
    ("act", "negatives", "widths"),
    [
        ("relu", "hard", (8, 7, 5)),
        ("tanh", "uniform", (8, 7)),
        ("gelu", "hard", (8,)),
        ("leaky-relu", "uniform", (4, 6, 5, 7)),
    ],
)
def test_a_step_is_the_gradient_of_the_written_losses(act: str, negatives: str, widths: tuple[int, ...]) -> None:
    net = nets.mlp([INPUTS, *widths], act=act)
    rule = build(net, negatives=negatives, temperature=1.7, label=1.3, iterations=5, damping=0.4)
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


@pytest.mark.parametrize("options", [{"bias": False}, {"norm": True}])
def test_a_layer_may_lack_a_bias_or_be_normalised_before_its_activation(options: dict[str, Any]) -> None:
    rule = build(nets.mlp([INPUTS, 8, 7], **options), iterations=4)
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_blocks_without_weights_are_passed_on_the_way_up_and_need_no_derivative() -> None:
    blocks = list(nets.mlp([INPUTS, 8, 7]))
    rule = build(nn.Sequential(nn.Flatten(), blocks[0], Opaque(), blocks[1]), iterations=4)
    assert set(rule.optimizers) == {f"{word}.{i}" for word in ("blocks", "downs", "heads") for i in (1, 3)}
    x, y = batch()
    expected = naive_gradients(rule, x, y)
    close(gradients(rule, x, y), expected)


def test_activations_that_work_in_place_change_nothing() -> None:
    x, y = batch()
    plain = build()
    other = build(nets.mlp([INPUTS, 8, 7, 5]))
    for block in other.net:
        block.activation = nn.ReLU(inplace=True)
    rule = build(other.net)
    close(gradients(rule, x, y), gradients(plain, x, y))
    torch.testing.assert_close(rule(x), plain(x))


def test_frozen_blocks_stay_and_what_comes_from_above_still_learns() -> None:
    net = nets.mlp([INPUTS, 8, 7, 5])
    net[1].requires_grad_(False)
    rule = build(net, optimizer=partial(torch.optim.SGD, lr=0.1))
    before = {n: p.detach().clone() for n, p in rule.named_parameters()}
    rule.step(*batch())
    still = {n for n, p in rule.named_parameters() if torch.equal(p, before[n])}
    assert still == {"net.1.affine.weight", "net.1.affine.bias"}


def test_peers_push_units_towards_the_mean_activity_even_where_relu_is_off() -> None:
    rule = build(peer=0.3, iterations=4)
    x, y = batch()
    with torch.no_grad():
        rule.net[0].affine.bias[2] = -100.0  # never on
        for i, width in enumerate((8, 7, 5)):
            rule.get_buffer(f"means_{i}").copy_(torch.linspace(0.1, 0.9, width))
    rule.peer, peer = 0.0, rule.peer
    state = rule.generator.get_state()
    plain = gradients(rule, x, y)
    rule.generator.set_state(state)
    rule.peer = peer
    found = gradients(rule, x, y)
    histories = [relaxation(rule, sample, int(label), 4) for sample, label in zip(x, y, strict=True)]
    for i, width in enumerate((8, 7, 5)):
        m = torch.linspace(0.1, 0.9, width).double()
        push = 0.3 * (m.mean() - m)
        bias = f"net.{i}.affine.bias"
        torch.testing.assert_close(found[bias], plain[bias] - push, rtol=1e-9, atol=1e-12)
        sent = torch.stack([unit(h[i + 1]) for past in histories for h in past[:-1]]).mean(0) if i < 2 else None
        if sent is not None:
            expected = plain[f"downs.{i}.weight"] - torch.outer(push, sent)
            torch.testing.assert_close(found[f"downs.{i}.weight"], expected, rtol=1e-9, atol=1e-12)
        active = torch.stack([h[i] for past in histories for h in past[1:]]).mean(0)
        torch.testing.assert_close(rule.get_buffer(f"means_{i}"), 0.9 * m + 0.1 * active, rtol=1e-9, atol=1e-12)
    assert plain["net.0.affine.bias"][2] == 0
    assert found["net.0.affine.bias"][2] < 0  # descent raises the bias of the unit that is never on


# Predictions and states.


def test_energy_is_the_goodness_of_one_relaxation_a_class_over_the_window() -> None:
    rule = build(window=(2, 4))
    x, _ = batch()
    expected = torch.zeros(len(x), CLASSES).double()
    for row, sample in enumerate(x):
        for label in range(CLASSES):
            for states in relaxation(rule, sample, label, 4)[2:]:
                expected[row, label] += sum(h.detach().square().sum() for h in states) / 3
    torch.testing.assert_close(rule(x), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rule.predictors()["energy"](x), expected, rtol=1e-9, atol=1e-12)


def test_energy_of_many_samples_is_that_of_each() -> None:
    rule = build()
    x = torch.rand(230, INPUTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(rule(x), torch.cat([rule(row) for row in x.split(1)]))


def test_states_are_those_of_the_last_iteration_with_the_label_that_was_given() -> None:
    rule = build(iterations=6)
    x, y = batch()
    found = rule.states(x, y)
    assert [h.shape for h in found] == [(BATCH, 8), (BATCH, 7), (BATCH, 5)]
    for row, (sample, label) in enumerate(zip(x, y.tolist(), strict=True)):
        for h, expected in zip(found, relaxation(rule, sample, label, 6)[-1], strict=True):
            torch.testing.assert_close(h[row], expected)


def test_states_without_an_image_come_from_the_label_alone() -> None:
    rule = build()
    found = rule.states(torch.zeros(CLASSES, INPUTS).double(), torch.arange(CLASSES))
    assert all(bool(h.isfinite().all()) for h in found)
    assert not torch.allclose(found[0][0], found[0][1])


def test_normalised_states_have_mean_square_one_and_silent_ones_stay_silent() -> None:
    h = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    a = normalise(h, torch.linalg.vector_norm(h, dim=2))
    torch.testing.assert_close(a.square().mean(2), torch.tensor([[1.0, 0.0]]))


def test_hard_negatives_come_from_the_heads_prediction() -> None:
    rule = build()
    x, y = batch()
    with torch.no_grad():
        rule.heads["2"].weight.zero_()[1] = 1e6  # activities after ReLU are positive: one class for all
    assert bool((drawn(rule, x, y)[y != 1] == 1).all())
    expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    close({n: g for n, g in found.items() if n[0] != "h"}, {n: g for n, g in expected.items() if n[0] != "h"})


# Cost.


@pytest.mark.parametrize("iterations", [3, 8])
def test_operations_equal_a_count_by_hand(iterations: int) -> None:
    n0, n1, n2, n3 = 40, 32, 24, 16
    rule = build(nets.mlp([n0, n1, n2, n3]), inputs=n0, iterations=iterations)
    x, y = batch(inputs=n0)
    with Trace({}) as trace:
        rule.step(x, y)
    image = 2 * n0 * n1  # forward and weight gradient, once for all iterations and both labels
    label = 2 * 2 * CLASSES * n3
    head = 2 * CLASSES * (n1 + n2 + n3)
    start = n1 * n2 + n2 * n3
    # Rows of the batch that each sender has sent by the end: one while no label has reached it, then two.
    sent = {layer: sum(1 if t <= 3 - layer else 2 for t in range(iterations)) for layer in (1, 2, 3)}
    senders = sent[1] * n1 * n2 + sent[2] * n2 * n3 + sent[2] * n2 * n1 + sent[3] * n3 * n2
    assert trace.operations == 2 * BATCH * (image + label + head + start + 2 * senders)


def test_energy_multiplies_the_image_and_what_no_label_has_reached_once() -> None:
    rule = build()
    x, _ = batch()
    with Trace({}) as trace, torch.no_grad():
        rule(x)
    start = INPUTS * 8 + 8 * 7 + 7 * 5
    sent = {layer: sum(1 if t <= 3 - layer else CLASSES for t in range(5)) for layer in (1, 2, 3)}
    senders = sent[1] * 8 * 7 + sent[2] * 7 * 5 + sent[2] * 7 * 8 + sent[3] * 5 * 7
    assert trace.operations == 2 * (BATCH * (start + senders) + CLASSES * CLASSES * 5)


def test_peak_memory_does_not_grow_with_the_iterations() -> None:
    peaks = set()
    for iterations in (4, 32):
        rule = build(iterations=iterations, peer=0.1)
        rule.step(*batch())
        with Trace({}) as trace:
            rule.step(*batch())
        peaks.add(trace.peak_bytes)
    assert len(peaks) == 1, peaks


# It learns, and says what it cannot do.


@pytest.mark.parametrize(("negatives", "act"), [("hard", "relu"), ("uniform", "tanh")])
def test_it_learns_clusters(act: str, negatives: str) -> None:
    g = torch.Generator().manual_seed(0)
    centres = torch.rand(CLASSES, 24, generator=g)
    y = torch.randint(CLASSES, (600,), generator=g)
    x = centres[y] + 0.15 * torch.randn(600, 24, generator=g)
    rule = RecurrentForwardForward(nets.mlp([24, 32, 32], act=act), Problem((24,), CLASSES), negatives=negatives)
    for _ in range(10):
        for i in range(0, 600, 50):
            rule.step(x[i : i + 50], y[i : i + 50])
    with torch.no_grad():
        for name, predict in rule.predictors().items():
            assert (predict(x).argmax(1) == y).float().mean() > 0.95, name


def test_threshold_is_the_width_for_relu_and_half_of_it_for_bounded_activations() -> None:
    assert build().thresholds == [8.0, 7.0, 5.0]
    assert build(nets.mlp([INPUTS, 8, 7], act="tanh")).thresholds == [4.0, 3.5]
    assert build(threshold=0.25).thresholds == [2.0, 1.75, 1.25]


def test_without_peers_training_leaves_nothing_that_prediction_does_not_read() -> None:
    assert build(peer=0.1).claims.training_only
    assert not build().claims.training_only


@pytest.mark.parametrize(
    ("net", "problem", "reason"),
    [
        (nets.mlp([9, 8], classes=3), Problem((9,), 3), "ends in an output block"),
        (nets.conv((1, 8, 8), [4]), Problem((1, 8, 8), 3), "block 0 is more than a linear layer"),
        (nets.mlp([9, 8]), Problem((9,), 3, "regression"), "two classes or more"),
        (nets.mlp([9, 8]), Problem((9,), 1), "two classes or more"),
        (nets.mlp([9, 8]), Problem((12,), 3), "takes 9 features"),
        (nets.mlp([9, 8]).requires_grad_(False), Problem((9,), 3), "trainable parameters"),
        (nn.Sequential(*nets.mlp([9, 8]), nn.ReLU()), Problem((9,), 3), "last block has no weights"),
        (nn.Sequential(*nets.mlp([9, 8]), nets.Block(norm=nn.BatchNorm1d(8))), Problem((9,), 3), "batch statistics"),
    ],
)
def test_nets_that_it_cannot_train_are_refused_with_the_reason(net: Any, problem: Problem, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        RecurrentForwardForward(net, problem)


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": "soft"},
        {"label": 0.0},
        {"temperature": 0.0},
        {"damping": 1.0},
        {"iterations": 0},
        {"window": (4, 3)},
    ],
)
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        build(**options)
