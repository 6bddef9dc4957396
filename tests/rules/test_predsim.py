"""Predsim: what its similarities are made of, rows without variation, and what it refuses."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.local.predsim import PredSim, similarity
from steps import gradients, learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)), torch.arange(shape[0]) % 4


def test_each_block_has_learnt_before_the_next_is_entered() -> None:
    learnt = learnt_when_entered(PredSim(nets.mlp([6, 8, 7], classes=4), optimizer=SGD), *batch(8, 6))
    assert learnt == [[False] * 3, [True, False, False], [True, True, False]]


def test_memory_is_flat_in_depth() -> None:
    assert len(set(peaks(lambda depth: PredSim(nets.mlp([20] * depth, classes=4)), *batch(32, 20)))) == 1


def test_images_are_compared_by_the_spread_of_their_channels_and_few_channels_by_their_values() -> None:
    z = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.corrcoef(z.flatten(2).std(2))
    torch.testing.assert_close(similarity(z), expected)
    torch.testing.assert_close(similarity(z[:, :3]), torch.corrcoef(z[:, :3].flatten(1)))
    torch.testing.assert_close(similarity(z[:, :, :1, :1]), torch.corrcoef(z[:, :, 0, 0]))


@pytest.mark.parametrize(
    ("net", "shape"), [(nets.mlp([6, 8], classes=4), (6,)), (nets.conv((1, 8, 8), [5, 6], classes=4), (1, 8, 8))]
)
def test_dead_units_leave_finite_gradients(net: nn.Sequential, shape: tuple[int, ...]) -> None:
    layer = nets.affine(net[0])
    assert layer is not None
    with torch.no_grad():
        layer.get_parameter("bias").fill_(-100.0)
    with pytest.warns(UserWarning, match="no unit of block 0 answers"):
        found = gradients(PredSim(net, Problem(shape, 4), optimizer=SGD), *batch(16, *shape))
    assert all(bool(torch.isfinite(g).all()) for g in found.values())
    assert not found["net.0.affine.weight"].any()


def test_the_classifier_starts_at_zero_and_learns_while_beta_is_below_one() -> None:
    x, y = batch(8, 6)
    for beta in (0.0, 0.99, 1.0):
        rule = PredSim(nets.mlp([6, 8], classes=4), optimizer=SGD, beta=beta)
        head = rule.heads["0"].get_submodule("readout.linear")
        assert not any(bool(p.any()) for p in head.parameters())
        found = gradients(rule, x, y)
        assert bool(found["heads.0.readout.linear.weight"].any()) == (beta < 1)
        assert bool(found["heads.0.project.weight"].any()) == (beta > 0)


def test_the_map_of_a_flattened_image_is_narrow_and_that_of_images_is_a_convolution() -> None:
    rule = PredSim(nets.conv((1, 28, 28), [8, 64], classes=4), Problem((1, 28, 28), 4))
    shapes = [tuple(rule.heads[i].get_parameter("project.weight").shape) for i in ("0", "1")]
    assert shapes == [(8, 8, 3, 3), (1024, 64 * 7 * 7)]


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="a regression has none"):
        PredSim(nets.mlp([6, 8], classes=2), Problem((6,), 2, "regression"))
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        PredSim(nets.mlp([6, 4]), Problem((6,), 4))
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="must lie between 0 and 1"):
            PredSim(nets.mlp([6, 8], classes=4), beta=beta)
