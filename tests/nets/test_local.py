from functools import partial

import pytest
import torch
from torch import nn

from altprop import Problem, nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.nets.fields import overlaid, windows
from altprop.rules.reference.backprop import Backprop

GEOMETRIES = [((7, 9), 3, 2, 1), ((6, 6), 5, 1, 0), ((6, 5), 2, 1, 0), ((9, 8), 4, 3, 2), ((4, 4), 4, 1, 0)]


def layer(size, kernel, stride, padding, **options):
    return nets.Local(2, 3, size, kernel, stride, padding, init="uniform", **options).double()


def images(size, batch=4, channels=2, seed=0):
    return torch.randn(batch, channels, *size, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def naive(local, x):
    """One sum a unit, after cutting its field out of the padded image by hand."""
    rows, columns = local.grid
    padded = nn.functional.pad(x, [local.padding] * 4)
    z = x.new_zeros(len(x), local.out_channels, rows, columns)
    for i in range(rows):
        for j in range(columns):
            top, left = i * local.stride, j * local.stride
            field = padded[:, :, top : top + local.kernel_size, left : left + local.kernel_size]
            for k in range(local.out_channels):
                unit = (i * columns + j) * local.out_channels + k
                z[:, k, i, j] = (field * local.weight[unit].view_as(field[0])).sum((1, 2, 3))
                if local.bias is not None:
                    z[:, k, i, j] += local.bias[unit]
    return z


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bias", [True, False])
def test_every_place_has_its_own_weights(geometry, bias):
    local, x = layer(*geometry, bias=bias), images(geometry[0])
    torch.testing.assert_close(local(x), naive(local, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_with_the_same_weights_everywhere_it_is_a_convolution(geometry):
    size, kernel, stride, padding = geometry
    local, x = layer(*geometry), images(size).requires_grad_()
    shared = nn.Conv2d(2, 3, kernel, stride, padding).double()
    with torch.no_grad():
        places = local.grid[0] * local.grid[1]
        local.weight.copy_(shared.weight.flatten(1).repeat(places, 1))
        local.bias.copy_(shared.bias.repeat(places))
    torch.testing.assert_close(local(x), shared(x), rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(f(x).cos().sum(), x)[0] for f in (local, shared))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # what PyTorch loads for forward mode
@pytest.mark.parametrize("geometry", [((4, 5), 3, 1, 1), ((5, 6), 2, 3, 1), ((4, 4), 3, 1, 0)])
def test_derivatives_of_all_kinds(geometry):
    local, x = layer(*geometry), images(geometry[0], batch=2).requires_grad_()

    def f(x, weight, bias):
        return torch.func.functional_call(local, {"weight": weight, "bias": bias}, x)

    inputs = (x, local.weight, local.bias)
    assert torch.autograd.gradcheck(f, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(local, x)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_overlaying_is_the_adjoint_of_cutting_windows(geometry):
    size, *rest = geometry
    x = images(size)
    seen = windows(x, *rest)
    y = torch.randn_like(seen)
    torch.testing.assert_close((seen * y).sum(), (x * overlaid(y, tuple(x.shape), *rest)).sum())


@pytest.mark.parametrize("batch", [1, 3])
def test_any_layout_in_memory_gives_the_same(batch):
    local = layer((6, 6), 3, 1, 0)
    x = images((6, 6), batch)
    there = torch.cat([x, x])[::2].transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(local(there), naive(local, there))
    torch.testing.assert_close(
        local(x.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)), naive(local, x), rtol=1e-12, atol=1e-12
    )


def test_map_takes_some_of_the_channels_and_no_bias():
    local, x = layer((6, 6), 3, 3, 0), images((6, 6))
    whole = local(x) - local.bias.view(2, 2, 3).permute(2, 0, 1)
    torch.testing.assert_close(local.map(x), whole, rtol=1e-12, atol=1e-12)
    parts = local.map(x[:, :1], slice(0, 1)) + local.map(x[:, 1:], slice(1, None))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    assert nets.Local(1, 1, (3, 3), 3).map(torch.ones(2, 1, 3, 3)).shape == (2, 1, 1, 1)


def test_operations_are_those_of_the_units_and_none_is_wasted():
    local, x = nets.Local(2, 3, (9, 9), 5, 2), torch.randn(4, 2, 9, 9)
    products = 2 * 4 * (3 * 3 * 3) * (2 * 5 * 5)  # batch, units, inputs of a unit
    with Trace({"weight": local.weight}, keep_operands=True) as forward:
        y = local(x)
    with Trace({}) as backward:
        y.sum().backward()
    assert forward.operations == products
    assert backward.operations == products  # the weights' gradient only: x needs none
    y = local(x.requires_grad_())
    with Trace({}) as backward:
        y.sum().backward()
    assert backward.operations == 2 * products
    fields = nn.functional.unfold(x, 5, stride=2).permute(2, 0, 1).reshape(-1, 50)
    torch.testing.assert_close(forward.operands["weight"][0], fields)


@pytest.mark.parametrize(("kind", "expected"), [("lecun", 1 / 72), ("kaiming", 2 / 72), ("uniform", 1 / (3 * 72))])
def test_initialised_by_its_own_fan_in(kind, expected):
    def make(seed):
        return nets.Local(8, 16, (15, 15), 3, init=kind, generator=torch.Generator().manual_seed(seed))

    assert make(0).weight.var().item() == pytest.approx(expected, rel=0.02)
    assert torch.equal(make(0).weight, make(0).weight)
    assert not torch.equal(make(0).weight, make(1).weight)
    assert (make(0).bias != 0).any() == (kind == "uniform")


def test_hintons_net_for_mnist():
    net = nets.local((1, 28, 28), [(128, 10, 6), (220, 2, 1), (512, 2, 1)], classes=10)
    assert nets.shapes(net, (1, 28, 28)) == [(128, 4, 4), (220, 3, 3), (2048,), (10,)]
    assert nets.input_shape(net) == (1, 28, 28)
    assert isinstance(nets.affine(net[0]), nets.Local)
    assert nets.affine(net[0].affine) is net[0].affine
    assert nets.output_layer(net).in_features == 2048


def test_fields_may_be_padded():
    net = nets.local((3, 32, 32), [(4, 11, 3), (5, 3, 1, 1)], act="tanh")
    assert nets.shapes(net, (3, 32, 32)) == [(4, 8, 8), (320,)]
    assert isinstance(net[0].activation, nn.Tanh)


def test_a_users_model_is_cut_before_it():
    model = nn.Sequential(
        nets.Local(1, 2, (8, 8), 4, 4), nn.ReLU(), nets.Local(2, 3, (2, 2), 2), nn.ReLU(), nn.Flatten()
    )
    cut = nets.blocks(model)
    assert [type(block.affine) for block in cut] == [nets.Local, nets.Local]
    assert isinstance(cut[1].pool, nn.Flatten)


def test_backprop_trains_it():
    net = nets.local((1, 8, 8), [(8, 4, 2), (8, 2, 1)], classes=3)
    rule = Backprop(net, Problem((1, 8, 8), 3), optimizer=partial(torch.optim.Adam, lr=1e-2))
    x, y = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    first = rule.step(x, y)["loss"]
    for _ in range(60):
        last = rule.step(x, y)["loss"]
    assert last < 0.5 * first


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nets.local((1, 8, 8), [(4, 9, 1)]), "fields of 9x9 do not fit into an image of 8x8"),
        (lambda: nets.local((1, 8, 8), [(4, 4, 4), (4, 3, 1)]), "fields of 3x3 do not fit into an image of 2x2"),
        (lambda: nets.local((1, 8, 8), [(4, 4)]), r"a \(channels, kernel, stride\) for every block"),
        (lambda: nets.local((64,), [(4, 4, 1)]), r"give \(channels, height, width\)"),
        (lambda: nets.local((1, 8, 8), []), "for every block"),
        (lambda: nets.local((1, 8, 8), [(0, 3, 1)]), "must be positive"),
        (lambda: nets.local((1, 8, 8), [(4, 3, 0)]), "must be positive"),
        (lambda: nets.Local(1, 2, (8, 8), 3, padding=-1), "padding not negative"),
        (lambda: nets.Local(1, 2, (8, 8), 3)(torch.zeros(1, 1, 9, 9)), r"takes \(1, 8, 8\) a sample, not \(1, 9, 9\)"),
        (lambda: nets.Local(3, 2, (8, 8), 3).map(torch.zeros(1, 2, 8, 8), slice(0, 1)), r"takes \(1, 8, 8\) a sample"),
    ],
)
def test_mistakes_are_named(build, words):
    with pytest.raises(UsageError, match=words):
        build()
