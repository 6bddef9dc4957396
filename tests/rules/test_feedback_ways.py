"""Linear maps and convolutions whose error goes down through B: against autograd, and what they leave undone."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from altprop.analysis.trace import Trace
from altprop.rules.feedback import ways
from altprop.rules.feedback.signs import glorot, signed, sizes

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "stride and padding": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "dilation, no bias": nn.Conv2d(4, 6, (3, 2), dilation=2, padding=(2, 1), bias=False),
    "groups": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, stride=(2, 1)),
    "same": nn.Conv2d(4, 6, (5, 3), padding="same"),
    "valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "reflected": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "one by one": nn.Conv2d(4, 6, 1, stride=2),
}
LINEARS = {"linear": nn.Linear(5, 7), "linear, no bias": nn.Linear(5, 7, bias=False)}
EVERY = {**CONVOLUTIONS, **LINEARS}
every_layer = pytest.mark.parametrize("name", EVERY)


def prepared(name: str) -> tuple[nn.Linear | nn.Conv2d, Tensor, Tensor]:
    """The layer in float64, an input and a B."""
    layer = EVERY[name].double()
    layer.zero_grad()
    draw = torch.Generator().manual_seed(0)
    shape = (3, 4, 9, 8) if isinstance(layer, nn.Conv2d) else (3, 5)
    x = torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
    return layer, x, torch.randn(layer.weight.shape, generator=draw, dtype=torch.float64)


@every_layer
def test_forward_and_own_gradients_are_the_layers_and_the_input_gets_its_through_b(name: str) -> None:
    layer, x, b = prepared(name)
    plain = layer(x)
    g = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(layer.parameters())
    expected = torch.autograd.grad(plain, parameters, g)
    z = ways.through(layer, x, b)
    assert torch.equal(z, plain)
    dx, *found = torch.autograd.grad(z, [x, *parameters], g)
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        own = layer.weight.clone()
        layer.weight.copy_(b)
        through_b = torch.autograd.functional.vjp(layer, x, g)[1]
        layer.weight.copy_(own)
    torch.testing.assert_close(dx, through_b, rtol=1e-12, atol=1e-13)
    assert not torch.allclose(dx, torch.autograd.grad(layer(x), x, g)[0])


@every_layer
def test_with_b_equal_to_w_it_is_backpropagation_to_the_bit(name: str) -> None:
    layer, x, _ = prepared(name)
    wanted = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x).square().sum(), wanted)
    found = torch.autograd.grad(ways.through(layer, x, layer.weight.detach()).square().sum(), wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@every_layer
@pytest.mark.parametrize("frozen", [False, True])
def test_feedback_that_asks_for_a_gradient_gets_the_weights_own(name: str, frozen: bool) -> None:
    layer, x, b = prepared(name)
    layer.weight.requires_grad_(not frozen)
    b.requires_grad_()
    ways.through(layer, x, b).square().sum().backward()
    layer.weight.requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(b.grad, expected, rtol=1e-12, atol=1e-13)
    assert (layer.weight.grad is None) == frozen
    if not frozen:
        assert torch.equal(layer.weight.grad, b.grad) and layer.weight.grad.data_ptr() != b.grad.data_ptr()


@pytest.mark.parametrize("name", ["linear", "groups"])
@pytest.mark.parametrize("wanted", [("x",), ("w",), ("bias",), ("x", "w", "bias")])
def test_no_product_is_computed_that_nobody_asks_for(name: str, wanted: tuple[str, ...]) -> None:
    layer, x, b = prepared(name)
    x.requires_grad_("x" in wanted)
    layer.weight.requires_grad_("w" in wanted)
    layer.bias.requires_grad_("bias" in wanted)
    z = ways.through(layer, x, b)
    with Trace({}) as one:
        layer(x)
    with Trace({}) as trace:
        z.backward(torch.ones_like(z))
    assert trace.operations == one.operations * len(set(wanted) - {"bias"})
    layer.requires_grad_()


def test_inputs_of_any_rank() -> None:
    layer, b = nn.Linear(5, 7), torch.randn(7, 5)
    for shape in ((5,), (2, 3, 5)):
        x = torch.randn(shape, requires_grad=True)
        (dx,) = torch.autograd.grad(ways.through(layer, x, b).sum(), x)
        torch.testing.assert_close(dx, b.sum(0).expand(shape))
    image = torch.randn(4, 9, 8, requires_grad=True)
    conv = nn.Conv2d(4, 6, 3)
    z = ways.through(conv, image, conv.weight.detach())
    torch.testing.assert_close(z, conv(image))
    (dx,) = torch.autograd.grad(z.sum(), image)
    torch.testing.assert_close(dx, torch.autograd.grad(conv(image).sum(), image)[0])


@pytest.mark.parametrize("name", ["linear", "stride and padding"])
def test_under_autocast(name: str) -> None:
    layer, x, b = prepared(name)
    layer.float()
    x, b = x.detach().float().requires_grad_(), b.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z = ways.through(layer, x, b)
        assert z.dtype == torch.bfloat16
        z.float().square().sum().backward()
    assert x.grad.dtype == b.grad.dtype == layer.weight.grad.dtype == torch.float32
    with torch.no_grad():
        g = 2 * (F.conv2d(x, layer.weight, layer.bias, 2, 1) if x.dim() == 4 else layer(x))
        expected = F.conv_transpose2d(g, b, None, 2, 1, (0, 1)) if x.dim() == 4 else g @ b
    assert float((x.grad - expected).norm() / expected.norm()) < 0.02


def test_sizes_and_signs() -> None:
    weight = torch.randn(60, 20, 3, 3, generator=torch.Generator().manual_seed(0))
    assert glorot(weight) == pytest.approx(float(nn.init.xavier_normal_(torch.empty(60, 20, 3, 3)).std()), rel=0.05)
    drawn = sizes(weight, 2.0, torch.Generator().manual_seed(1))
    assert bool((drawn >= 0).all())
    assert float(drawn.square().mean().sqrt()) == pytest.approx(2 * glorot(weight), rel=0.02)
    b = signed(drawn, weight)
    assert torch.equal(b.sign(), weight.sign()) and torch.equal(b.abs(), drawn)
    assert torch.equal(signed(0.5, torch.tensor([[-2.0, 0.0, 3.0]])), torch.tensor([[-0.5, 0.0, 0.5]]))


def test_random_feedback_is_as_large_as_the_weights() -> None:
    weight = 0.3 * torch.randn(200, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = ways.random_like(weight, 2.0, torch.Generator().manual_seed(1))
    assert b.dtype == torch.float64 and float(b.std()) == pytest.approx(0.6, rel=0.03)
    zero = ways.random_like(torch.zeros(200, 100), 1.0, torch.Generator().manual_seed(1))
    assert float(zero.std()) == pytest.approx(0.1, rel=0.03)
