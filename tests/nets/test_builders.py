"""The builders: shapes, initial weights, and where their randomness comes from."""

import math

import pytest
import torch
from torch import nn

from altprop import UsageError, nets


def test_mlp_blocks() -> None:
    net = nets.mlp([784, 500, 300], classes=10, act="tanh")
    assert [(b.affine.in_features, b.affine.out_features) for b in net] == [(784, 500), (500, 300), (300, 10)]
    assert [type(b.activation) for b in net] == [nn.Tanh, nn.Tanh, type(None)]
    assert nets.output_layer(net) is net[-1].affine
    assert nets.output_layer(nets.mlp([784, 500])) is None
    assert nets.input_shape(net) == (784,)
    assert nets.shapes(net, (784,)) == [(500,), (300,), (10,)]


def test_normalised_mlp_has_units_of_mean_square_one() -> None:
    net = nets.mlp([20, 50], norm=True)
    z = net[0].norm(net[0].affine(torch.rand(8, 20)))
    torch.testing.assert_close(z.square().mean(1), torch.ones(8), rtol=1e-3, atol=0)


def test_conv_halves_while_it_can_and_flattens_at_the_end() -> None:
    net = nets.conv((3, 32, 32), [8, 16, 16, 16], classes=10)
    assert nets.shapes(net, (3, 32, 32)) == [(8, 16, 16), (16, 8, 8), (16, 4, 4), (256,), (10,)]
    assert nets.input_shape(net) == (3, None, None)


def test_conv_halves_after_the_blocks_that_are_named() -> None:
    net = nets.conv((3, 32, 32), [4, 4, 4], pooled=(2,))
    assert nets.shapes(net, (3, 32, 32)) == [(4, 32, 32), (4, 32, 32), (4 * 16 * 16,)]


def test_normalised_conv_has_units_of_mean_square_one_in_each_image() -> None:
    net = nets.conv((3, 8, 8), [6], norm=True)
    z = net[0].norm(net[0].affine(torch.rand(5, 3, 8, 8)))
    torch.testing.assert_close(z.square().mean((1, 2, 3)), torch.ones(5), rtol=1e-3, atol=0)
    assert not list(net[0].norm.parameters())


@pytest.mark.parametrize("side", [28, 32])
def test_vgg8b_has_the_eight_layers_of_its_paper(side: int) -> None:
    net = nets.vgg8b((3, side, side), 4, classes=10)
    a, b, c, d = (side // n for n in (1, 2, 4, 8))
    sizes = [(4, a, a), (8, b, b), (8, b, b), (16, c, c), (16, d, d), (16 * (side // 16) ** 2,), (32,), (10,)]
    assert nets.shapes(net, (3, side, side)) == sizes
    with torch.device("meta"):
        whole = nets.vgg8b((3, 32, 32), classes=10)
    convolutions = [(3, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512)]
    assert sum(p.numel() for p in whole.parameters()) == (
        sum((9 * n + 1) * m for n, m in convolutions) + (2048 + 1) * 1024 + (1024 + 1) * 10
    )


@pytest.mark.parametrize(("init", "gain"), [("kaiming", math.sqrt(2)), ("lecun", 1.0), ("uniform", 1 / math.sqrt(3))])
def test_initial_weights_have_the_promised_scale(init: str, gain: float) -> None:
    layer = nets.mlp([400, 600], init=init)[0].affine
    assert float(layer.weight.detach().std()) * math.sqrt(400) == pytest.approx(gain, rel=0.02)
    assert bool((layer.bias == 0).all()) == (init != "uniform")


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    one = nets.conv((1, 8, 8), [4], classes=2, generator=torch.Generator().manual_seed(5))
    state = torch.manual_seed(1).get_state()
    other = nets.conv((1, 8, 8), [4], classes=2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nets.mlp([784]), "at least one hidden width"),
        (lambda: nets.mlp([784, 0]), "all positive"),
        (lambda: nets.mlp([4, 4], act="rely"), "choose one of relu"),
        (lambda: nets.mlp([4, 4], init="xavier"), "choose one of kaiming"),
        (lambda: nets.conv((1, 8), [4]), "channels, height, width"),
        (lambda: nets.vgg8b((3, 8, 8)), "at least 16x16"),
        (lambda: nets.shapes(nets.conv((1, 8, 8), [4]), (1, None, None)), "leaves sizes open"),
        (lambda: nets.input_shape(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), "cannot be read off"),
    ],
)
def test_bad_nets_are_refused(build: object, words: str) -> None:
    assert callable(build)
    with pytest.raises(UsageError, match=words):
        build()


def test_shapes_leaves_modes_and_statistics_alone() -> None:
    net = nn.Sequential(nets.Block(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()))
    net[0].norm.eval()
    before = net[0].norm.running_mean.clone()
    nets.shapes(net, (4,))
    assert net.training and not net[0].norm.training
    assert torch.equal(net[0].norm.running_mean, before)
