"""Error forward propagation against its update written out by hand, against backprop and direct feedback alignment
where it must equal them, and what it promises."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from altprop.rules.forward_only.error_forward import ErrorForward
from altprop.rules.reference.backprop import Backprop
from steps import Opaque, gradients, peaks

SGD = partial(torch.optim.SGD, lr=0.1)
STILL = partial(torch.optim.SGD, lr=0.0)


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def rule_on(net: nn.Sequential, *shape: int, **options: object) -> ErrorForward:
    return ErrorForward(net.double(), Problem(shape, 4), **{"optimizer": SGD, **options})


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def naive_gradients(rule: ErrorForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """For a perceptron: one sample after another, with outer products."""
    layers = [block.affine for block in rule.net]
    found = {name: torch.zeros_like(p) for name, p in rule.named_parameters()}

    def active(i: int, z: Tensor) -> Tensor:
        norm, f = rule.net[i].norm, rule.net[i].activation
        if norm is not None:
            z = (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt()
        return z if f is None else f(z)

    for sample, label in zip(x, y, strict=True):
        hs = [sample]
        for i, layer in enumerate(layers):
            hs.append(active(i, layer.weight @ hs[-1] + layer.bias))
        p = hs[-1].exp()
        e = p / p.sum() - torch.eye(4, dtype=torch.float64)[label]
        drive = layers[0].weight @ sample + layers[0].bias - rule.get_buffer("loop").t() @ e
        for i in range(len(layers)):
            delta = e
            if i < len(layers) - 1:
                again = active(i, drive)
                delta = hs[i + 1] - again
                drive = layers[i + 1].weight @ again + layers[i + 1].bias
            found[f"net.{i}.affine.weight"] += torch.outer(delta, hs[i]) / len(x)
            found[f"net.{i}.affine.bias"] += delta / len(x)
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: nets.mlp([6, 8, 7, 5], classes=4),
        lambda: nets.mlp([6, 8, 7], classes=4, act="tanh", norm=True),
        lambda: nets.mlp([6, 8], classes=4, act="sigmoid"),
    ],
    ids=["relu", "tanh with layer norm", "one hidden block"],
)
def test_updates_equal_outer_products_sample_by_sample(make: object) -> None:
    assert callable(make)
    rule = rule_on(make(), 6)
    x, y = batch(5, 6)
    with torch.no_grad():
        expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert bool(value.any())
        close(value, expected[name])


def test_a_convolution_compares_activities_before_pooling() -> None:
    rule = rule_on(nets.conv((2, 8, 8), [3, 5], classes=4, act="tanh"), 2, 8, 8, optimizer=STILL)
    x, y = batch(3, 2, 8, 8)
    loop = rule.get_buffer("loop")
    assert loop.shape == (4, 3, 8, 8)
    found = gradients(rule, x, y)
    first, second, _ = rule.net
    with torch.no_grad():
        e = rule.net(x).softmax(1) - torch.eye(4, dtype=torch.float64)[y]
        z = first.affine(x)
        again = (z - torch.einsum("bk,kchw->bchw", e, loop)).tanh()
        differences = [z.tanh() - again]
        pooled, pooled_again = (nn.functional.max_pool2d(a, 2) for a in (z.tanh(), again))
        differences.append(second.affine(pooled).tanh() - second.affine(pooled_again).tanh())
    for i, (seen, difference) in enumerate(zip((x, pooled), differences, strict=True)):
        patches = nn.functional.unfold(seen, 3, padding=1)  # (batch, inputs of a patch, places)
        weight = torch.einsum("bcp,bip->ci", difference.flatten(2), patches) / 3
        close(found[f"net.{i}.affine.weight"].flatten(1), weight)
        close(found[f"net.{i}.affine.bias"], difference.sum((0, 2, 3)) / 3)
    assert len(found) == 6


def linear_net(*widths: int) -> nn.Sequential:
    net = nets.mlp(widths, classes=4)
    for block in net[:-1]:
        block.activation = None
    return net.double()


def test_one_linear_hidden_block_with_the_output_weights_as_loop_is_backprop() -> None:
    net = linear_net(6, 8)
    x, y = batch(5, 6)
    rule = rule_on(net, 6, optimizer=STILL)
    rule.get_buffer("loop").copy_(net[1].affine.weight.detach())
    found, expected = gradients(rule, x, y), gradients(Backprop(net, optimizer=STILL), x, y)
    for name, value in found.items():
        close(value, expected[name])


def test_a_linear_net_is_direct_feedback_alignment_whose_feedback_went_forward() -> None:
    net = linear_net(6, 8, 7, 5)
    x, y = batch(5, 6)
    rule, other = rule_on(net, 6, optimizer=STILL), DirectFeedbackAlignment(net, optimizer=STILL)
    feedback = rule.get_buffer("loop").clone()
    for i in range(3):
        other.get_buffer(f"feedback_{i}").copy_(feedback)
        feedback = feedback @ net[i + 1].affine.weight.detach().t()
    found, expected = gradients(rule, x, y), gradients(other, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        close(value, expected[name])


def test_a_weak_loop_sends_the_error_through_the_derivatives_of_the_forward_pass() -> None:
    net = nets.mlp([6, 8, 7, 5], classes=4, act="tanh").double()
    x, y = batch(5, 6)
    weak = 1e-6
    rule = rule_on(net, 6, optimizer=STILL, scale=weak)
    found = gradients(rule, x, y)
    with torch.no_grad():
        e = net(x).softmax(1) - torch.eye(4, dtype=torch.float64)[y]
        tangent, h = e @ rule.get_buffer("loop") / weak, x
        for i, block in enumerate(net[:-1]):
            seen, h = h, block(h)
            tangent = (tangent if i == 0 else tangent @ block.affine.weight.t()) * (1 - h.square())
    torch.testing.assert_close(found["net.2.affine.weight"] / weak, tangent.t() @ seen / 5, rtol=1e-5, atol=1e-8)


def test_regression_sends_the_difference() -> None:
    net = nets.mlp([6, 8], classes=2).double()
    rule = ErrorForward(net, Problem((6,), 2, "regression"), optimizer=STILL)
    x, _ = batch(5, 6)
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    with torch.no_grad():
        e, z = net(x) - y, net[0].affine(x)
        delta = z.relu() - (z - e @ rule.get_buffer("loop")).relu()
        expected = delta.t() @ x / 5, e.t() @ z.relu() / 5
    found = gradients(rule, x, y)
    close(found["net.0.affine.weight"], expected[0])
    close(found["net.1.affine.weight"], expected[1])


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = ErrorForward(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    forward = weight_gradients = n0 * n1 + n1 * n2 + n2 * c
    assert trace.operations == 2 * b * (forward + c * n1 + n1 * n2 + weight_gradients)


def test_memory_grows_with_depth() -> None:
    low, middle, high = peaks(lambda depth: rule_on(nets.mlp([20] * depth, classes=4), 20), *batch(32, 20))
    assert middle > 1.5 * low and high > 2 * middle


def test_a_block_has_learnt_before_the_next_one_is_entered_again() -> None:
    rule = rule_on(nets.mlp([6, 8, 7], classes=4), 6)
    order: list[str] = []
    for i, block in enumerate(rule.net):
        block.affine.register_forward_pre_hook(lambda *_, i=i: order.append(f"enter {i}"))
        rule.optimizers[f"blocks.{i}"].register_step_pre_hook(lambda *_, i=i: order.append(f"learn {i}"))
    rule.step(*batch(5, 6))
    assert order == ["enter 0", "enter 1", "enter 2", "learn 0", "enter 1", "learn 1", "learn 2"]


def test_activations_and_blocks_without_derivative_are_no_hindrance() -> None:
    first, second, output = nets.mlp([6, 20, 20], classes=4)
    first.activation = Opaque()
    rule = rule_on(nn.Sequential(nn.Flatten(), first, Opaque(), second, output), 6)
    assert rule.entry == 1
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


def test_activations_in_place_change_nothing() -> None:
    def build(in_place: bool) -> ErrorForward:
        net = nets.mlp([6, 8, 7], classes=4)
        for block in net[:-1]:
            block.activation = nn.ReLU(inplace=in_place)
        return rule_on(net, 6)

    x, y = batch(5, 6)
    expected = gradients(build(False), x, y)
    for name, value in gradients(build(True), x, y).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_blocks_stay_and_the_loop_ends_where_learning_begins(frozen: int) -> None:
    net = nets.mlp([6, 8, 7], classes=4)
    net[frozen].requires_grad_(False)
    rule = rule_on(net, 6)
    assert rule.entry == (1 if frozen == 0 else 0)
    assert rule.get_buffer("loop").shape == (4, 7 if frozen == 0 else 8)
    before = [block.affine.weight.clone() for block in net]
    rule.step(*batch(12, 6))
    same = [torch.equal(block.affine.weight, w) for block, w in zip(net, before, strict=True)]
    assert same == [i == frozen for i in range(3)]
    assert all(p.grad is None for p in net.parameters())


def test_the_loop_is_a_buffer_of_the_documented_size_from_the_generator() -> None:
    def build(seed: int) -> ErrorForward:
        return ErrorForward(nets.mlp([6, 400], classes=50), scale=3.0, generator=torch.Generator().manual_seed(seed))

    rule = build(0)
    b = rule.get_buffer("loop")
    assert "loop" in rule.state_dict() and b.shape == (50, 400)
    assert abs(float(b.std()) * 400**0.5 - 3.0) < 0.05
    assert torch.equal(b, build(0).get_buffer("loop"))
    assert not torch.equal(b, build(1).get_buffer("loop"))
    before = b.clone()
    rule.step(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert torch.equal(b, before)


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        ErrorForward(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="before the output block"):
        ErrorForward(nets.mlp([6], classes=4))
    with pytest.raises(UsageError, match="leaves sizes open"):
        ErrorForward(nets.conv((2, 8, 8), [3], classes=4))
    norm = nets.Block(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(UsageError, match="mix its two passes"):
        ErrorForward(nn.Sequential(norm, nn.Linear(8, 4)))
    own = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    with pytest.raises(UsageError, match="block 0 has trainable parameters outside"):
        ErrorForward(nn.Sequential(own, nn.Linear(8, 4)), Problem((6,), 4))
