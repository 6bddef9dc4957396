"""Direct feedback alignment against backpropagation, and against the formula written out by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from altprop.rules.reference.backprop import Backprop
from steps import Opaque, gradients

SGD = partial(torch.optim.SGD, lr=0.1)


def mlp(act: str = "relu", widths: tuple[int, ...] = (6, 8, 7), classes: int = 4) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, act=act).double()


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_linear_net_with_the_products_of_weights_as_feedback_is_backprop() -> None:
    net = mlp(widths=(6, 8, 7, 5))
    for block in net[:-1]:
        block.activation = None
    rule = DirectFeedbackAlignment(net, optimizer=SGD)
    downstream = torch.eye(4, dtype=torch.float64)
    for i in reversed(range(3)):
        downstream = downstream @ net[i + 1].affine.weight.detach()  # (classes, width of block i)
        rule.get_buffer(f"feedback_{i}").copy_(downstream)
    x, y = batch(5, 6)
    other = Backprop(net, optimizer=partial(torch.optim.SGD, lr=0.0))
    expected = gradients(other, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected)
    for name, value in found.items():
        close(value, expected[name])


def test_output_block_gets_the_true_gradient_and_the_first_one_does_not() -> None:
    net = mlp()
    x, y = batch(5, 6)
    expected = gradients(Backprop(net, optimizer=partial(torch.optim.SGD, lr=0.0)), x, y)
    rule = DirectFeedbackAlignment(net, optimizer=SGD)
    found = gradients(rule, x, y)
    for name in ("net.2.affine.weight", "net.2.affine.bias"):
        close(found[name], expected[name])
    assert not torch.allclose(found["net.0.affine.weight"], expected["net.0.affine.weight"])


def test_relu_blocks_follow_the_papers_formula() -> None:
    net = mlp()
    rule = DirectFeedbackAlignment(net, optimizer=SGD)
    x, y = batch(5, 6)
    weights = [(block.affine.weight.detach().clone(), block.affine.bias.detach().clone()) for block in net]
    hs, activities = [x], []
    for w, b in weights:
        activities.append(hs[-1] @ w.T + b)
        hs.append(activities[-1].clamp_min(0.0))
    p = activities[-1].exp()
    e = (p / p.sum(1, keepdim=True) - torch.eye(4, dtype=torch.float64)[y]) / len(x)
    found = gradients(rule, x, y)
    for i in range(2):
        delta = (e @ rule.get_buffer(f"feedback_{i}")) * (activities[i] > 0)
        close(found[f"net.{i}.affine.weight"], delta.T @ hs[i])
        close(found[f"net.{i}.affine.bias"], delta.sum(0))


def test_convolution_with_pooling_follows_the_formula_patch_by_patch() -> None:
    net = nets.conv((2, 8, 8), [3, 5], classes=4, act="tanh").double()
    rule = DirectFeedbackAlignment(net, Problem((2, 8, 8), 4), optimizer=SGD)
    x, y = batch(3, 2, 8, 8)
    layer = net[0].affine
    a = nn.functional.conv2d(x, layer.weight.detach(), layer.bias.detach(), padding=1)
    pooled, where = nn.functional.max_pool2d(a.tanh(), 2, return_indices=True)
    e = net(x).detach().softmax(1) - torch.eye(4, dtype=torch.float64)[y]
    feedback = rule.get_buffer("feedback_0")
    assert feedback.shape == (4, *pooled.shape[1:])
    delta = torch.einsum("bk,kchw->bchw", e / len(x), feedback)
    delta = nn.functional.max_unpool2d(delta, where, 2) * (1 - a.tanh() ** 2)
    patches = nn.functional.unfold(x, 3, padding=1)  # (batch, inputs of a patch, places)
    expected = torch.einsum("bcp,bip->ci", delta.flatten(2), patches).view_as(layer.weight)
    found = gradients(rule, x, y)
    close(found["net.0.affine.weight"], expected)
    close(found["net.0.affine.bias"], delta.sum((0, 2, 3)))
    assert len(found) == 6  # the flattened second block and the output block learn too


def test_regression_feeds_back_the_difference() -> None:
    net = mlp(classes=2)
    rule = DirectFeedbackAlignment(net, Problem((6,), 2, "regression"), optimizer=SGD)
    x, _ = batch(5, 6)
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    a, scores = (x @ net[0].affine.weight.T + net[0].affine.bias).detach(), net(x).detach()
    delta = ((scores - y) / 5 @ rule.get_buffer("feedback_0")) * (a > 0)
    found = gradients(rule, x, y)
    close(found["net.0.affine.weight"], delta.T @ x)


def test_feedback_is_a_buffer_of_the_documented_size_from_the_generator() -> None:
    def build(seed: int) -> DirectFeedbackAlignment:
        return DirectFeedbackAlignment(
            nets.mlp([6, 400], classes=50), scale=3.0, generator=torch.Generator().manual_seed(seed)
        )

    rule = build(0)
    b = rule.get_buffer("feedback_0")
    assert "feedback_0" in rule.state_dict() and "feedback_0" not in dict(rule.named_parameters())
    assert abs(float(b.std()) * 400**0.5 - 3.0) < 0.05
    assert torch.equal(b, build(0).get_buffer("feedback_0"))
    assert not torch.equal(b, build(1).get_buffer("feedback_0"))
    before = b.clone()
    rule.step(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert torch.equal(b, before)


def test_a_block_without_derivative_does_not_stop_the_blocks_before_it() -> None:
    first, second, output = mlp()
    net = nn.Sequential(first, Opaque(), second, output)
    rule = DirectFeedbackAlignment(net, optimizer=SGD)
    before = first.affine.weight.detach().clone()
    rule.step(*batch(5, 6))
    assert not torch.equal(first.affine.weight, before)
    assert not hasattr(rule, "feedback_1")


def test_frozen_blocks_stay_and_need_no_feedback() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    rule = DirectFeedbackAlignment(net, optimizer=SGD)
    before = [p.clone() for p in net[0].parameters()]
    rule.step(*batch(5, 6))
    assert all(torch.equal(p, q) for p, q in zip(net[0].parameters(), before, strict=True))
    assert not hasattr(rule, "feedback_0")


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = DirectFeedbackAlignment(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    forward = weight_gradients = n0 * n1 + n1 * n2 + n2 * c
    feedback = c * n1 + c * n2
    assert trace.operations == 2 * b * (forward + weight_gradients + feedback)


def test_a_net_without_an_output_block_is_refused() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        DirectFeedbackAlignment(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="leaves sizes open"):
        DirectFeedbackAlignment(nets.conv((2, 8, 8), [3], classes=4))
