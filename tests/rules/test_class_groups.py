"""Channels in groups, one a class: where they lie, what is refused, and the choice of a span of blocks."""

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules.forward_only import class_groups
from altprop.rules.forward_only.channel_wise_competition import ChannelWiseCompetition
from altprop.rules.forward_only.deeper_forward import DeeperForward

both = pytest.mark.parametrize("kind", [ChannelWiseCompetition, DeeperForward])


def test_a_flattened_image_has_the_groups_of_its_channels() -> None:
    h = torch.arange(2 * 6 * 4 * 5).view(2, 6, 4, 5).float()
    groups = class_groups.grouped(h, 3)
    assert groups.shape == (2, 3, 2 * 4 * 5)
    assert torch.equal(groups[:, 1], h[:, 2:4].flatten(1))
    assert torch.equal(groups, class_groups.grouped(nn.Flatten()(h), 3))


def test_channels_are_counted_behind_a_flattening_too() -> None:
    shape = (2, 16, 16)
    for net in (nets.conv(shape, [6, 9]), nets.local(shape, [(6, 4, 4), (9, 2, 1)])):
        shapes = nets.shapes(net, shape)
        assert [class_groups.channels(net, shapes, i) for i in range(2)] == [6, 9]
        assert shapes[1][0] > 9
        assert class_groups.refusal(net, Problem(shape, 3)) is None
    mlp = nets.mlp([4, 6])
    assert class_groups.channels(mlp, nets.shapes(mlp, (4,)), 0) == 6


@both
def test_reasons_why_not(kind: type[Rule]) -> None:
    problem = Problem((6,), 4)
    with pytest.raises(UsageError, match="block 1 has 10 channels or units, no multiple of the 4 classes"):
        kind(nets.mlp([6, 8, 10, 9]), problem)
    with pytest.raises(UsageError, match="block 0 has 3 channels or units, fewer than the 4 classes"):
        kind(nets.mlp([6, 3]), problem)
    with pytest.raises(UsageError, match="block 1 has 6 channels"):  # its 24 values could be split, its channels not
        kind(nets.conv((1, 8, 8), [8, 6]), Problem((1, 8, 8), 4))
    with pytest.raises(UsageError, match="without classes"):
        kind(nets.mlp([6, 8], classes=4), problem)
    with pytest.raises(UsageError, match="regression"):
        kind(nets.mlp([6, 8]), Problem((6,), 4, "regression"))
    with pytest.raises(UsageError, match="block with parameters"):
        kind(nn.Sequential(nn.ReLU()), problem)


def test_the_best_span_is_found_among_all() -> None:
    y = torch.tensor([0, 1, 0, 1])
    right, wrong = 2.0 * nn.functional.one_hot(y, 2), 0.5 * nn.functional.one_hot(1 - y, 2)
    early, late = (torch.tensor(rows).unsqueeze(1) for rows in ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]))
    halves = [early * right + late * wrong, late * right + early * wrong]  # each sure of its half, and then right
    assert class_groups.best_span([10.0 * wrong, *halves, 10.0 * wrong], y) == (1, 2)
    assert class_groups.best_span([10.0 * wrong, halves[1]], y) == (1, 1)
    assert class_groups.best_span([right, right, 10.0 * wrong], y) == (1, 1)


def test_of_equal_spans_the_latest_is_taken() -> None:
    y = torch.tensor([0, 1])
    right = nn.functional.one_hot(y, 2).float()
    assert class_groups.best_span([right, right, right], y) == (2, 2)
