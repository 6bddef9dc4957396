"""Residual nets: what they compute, and that activities keep their size at any depth."""

import math

import pytest
import torch

from altprop import UsageError, nets


def test_it_computes_the_equations() -> None:
    net = nets.residual([6, 8, 8, 8], classes=3, act="tanh", generator=torch.Generator().manual_seed(1)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    w = [p.detach() for p in net.parameters()]
    h = x @ w[0].T / math.sqrt(6)
    for weight in w[1:3]:
        h = h + torch.tanh(h) @ weight.T / math.sqrt(8 * 4)
    torch.testing.assert_close(net(x), h @ w[3].T / 8, rtol=1e-12, atol=1e-14)


def test_activities_keep_their_size_at_any_depth_and_width() -> None:
    x = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    for width, depth in ((64, 4), (64, 64), (256, 16)):
        net = nets.residual([50, *[width] * depth])
        sizes = []
        h = x
        for block in net:
            h = block(h)
            sizes.append(float(h.detach().square().mean().sqrt()))
        assert 0.8 < sizes[0] < 1.2 and sizes[-1] < 2.0 * sizes[0]


def test_weights_come_from_the_generator_with_unit_variance() -> None:
    one, other = (nets.residual([50, 64, 64], generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    weights = torch.cat([p.detach().flatten() for p in one.parameters()])
    assert abs(float(weights.std()) - 1) < 0.02 and abs(float(weights.mean())) < 0.02
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_block_of_another_width_adds_nothing() -> None:
    net = nets.residual([6, 8, 4, 4], act="tanh").double()
    x = torch.randn(5, 6, dtype=torch.float64)
    h = net[0](x)
    torch.testing.assert_close(net[1](h), torch.tanh(h @ net[1].affine.weight.T / math.sqrt(8)))
    assert isinstance(net[2], nets.Residual)


@pytest.mark.parametrize("widths", [[6, 8], [6, 0, 0]])
def test_what_it_refuses(widths: list[int]) -> None:
    with pytest.raises(UsageError, match="at least two hidden widths"):
        nets.residual(widths)
