"""Each goodness against loops over its units; its gradient, its threshold, and what it refuses."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rules.forward_only.goodness import (
    GOODNESS,
    ChannelGroups,
    Goodness,
    MeanOfSquares,
    Negative,
    Regions,
    Sparse,
    SumOfAbsolutes,
    SumOfSquares,
    goodness,
)

IMAGE = (4, 6, 6)
KINDS: list[tuple[Goodness, tuple[int, ...]]] = [
    (SumOfSquares(), (12,)),
    (SumOfSquares(), IMAGE),
    (MeanOfSquares(), (12,)),
    (MeanOfSquares(), IMAGE),
    (SumOfAbsolutes(), (12,)),
    (Sparse(0.25), (12,)),
    (Sparse(0.1), IMAGE),
    (ChannelGroups(3), (12,)),
    (ChannelGroups(2), IMAGE),
    (ChannelGroups(4, mean=True), IMAGE),
    (Regions(2, 3), IMAGE),
    (Regions(3, 1, mean=True), IMAGE),
    (Regions(4, 4), IMAGE),
    (Negative(), (12,)),
    (Negative(Regions()), IMAGE),
]

each = pytest.mark.parametrize(("kind", "shape"), KINDS, ids=str)


def activities(shape: tuple[int, ...], rows: int = 5) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def windows(size: int, parts: int) -> list[range]:
    return [range(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def naive(kind: Goodness, row: Tensor) -> list[float]:
    """One row's goodness, written out."""
    units = row.flatten().tolist()
    if isinstance(kind, Negative):
        return [-g for g in naive(kind.of, row)]
    if isinstance(kind, SumOfSquares):
        return [sum(u * u for u in units)]
    if isinstance(kind, MeanOfSquares):
        return [sum(u * u for u in units) / len(units)]
    if isinstance(kind, SumOfAbsolutes):
        return [sum(abs(u) for u in units)]
    if isinstance(kind, Sparse):
        return [sum(sorted((u * u for u in units), reverse=True)[: round(kind.share * len(units))])]
    if isinstance(kind, ChannelGroups):
        size = len(units) // kind.groups
        groups = [units[i * size : (i + 1) * size] for i in range(kind.groups)]
        return [sum(u * u for u in group) / (size if kind.mean else 1) for group in groups]
    assert isinstance(kind, Regions)
    channels, height, width = row.shape
    found = []
    for rows, cols in product(windows(height, kind.rows), windows(width, kind.cols)):
        inside = [row[c, i, j].item() ** 2 for c in range(channels) for i in rows for j in cols]
        found.append(
            sum(inside) / len(inside) * (1 if kind.mean else channels * height * width / kind.rows / kind.cols)
        )
    return found


@each
def test_is_what_a_loop_over_the_units_gives(kind: Goodness, shape: tuple[int, ...]) -> None:
    h = activities(shape)
    expected = torch.tensor([naive(kind, row) for row in h], dtype=torch.float64)
    torch.testing.assert_close(kind(h), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kind(h[:1]), expected[:1], rtol=1e-12, atol=1e-12)
    assert kind.refuses(shape) is None
    if len(shape) == 3:
        torch.testing.assert_close(kind(h.contiguous(memory_format=torch.channels_last)), expected)


@each
def test_gradient(kind: Goodness, shape: tuple[int, ...]) -> None:
    h = activities(shape, 1).requires_grad_()
    assert torch.autograd.gradcheck(kind, (h,))
    h = torch.zeros(2, *shape, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kind(h).sum(), h)
    assert not gradient.any()


@each
def test_an_undecided_relu_block_is_at_the_threshold(kind: Goodness, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    h = math.sqrt(2) * torch.randn(4000, *shape, generator=generator, dtype=torch.float64).relu()
    if isinstance(kind, Sparse):  # the largest of few units are not at their limit
        shape = (20 * shape[0], *shape[1:])
        h = h.view(200, *shape)
    reached = kind(h).mean(0)
    assert kind.threshold(shape) == pytest.approx(float(reached.mean()), rel=0.03)
    torch.testing.assert_close(reached, torch.full_like(reached, kind.threshold(shape)), rtol=0.06, atol=0.0)


@each
def test_a_bounded_block_can_rise_above_and_fall_below_its_threshold(kind: Goodness, shape: tuple[int, ...]) -> None:
    theta = kind.threshold(shape, bounded=True)
    full, silent = kind(torch.ones(1, *shape)), kind(torch.zeros(1, *shape))
    for end in (full, silent):
        assert not torch.isclose(end, torch.tensor(theta)).any()
    assert bool(((full - theta) * (silent - theta) < 0).all())
    assert (theta < 0) == isinstance(kind, Negative)


def test_thresholds_of_a_block_of_100_units() -> None:
    found = {name: kind().threshold((100,)) for name, kind in GOODNESS.items() if name != "regions"}
    assert found.pop("sparse") == pytest.approx(64.98, abs=0.01)  # 200 (1.2816 * 0.17550 + 0.1)
    assert found.pop("sum-of-absolutes") == pytest.approx(56.42, abs=0.01)  # 100 / sqrt(pi)
    assert found == {"sum-of-squares": 100.0, "mean-of-squares": 1.0, "channel-groups": 25.0}
    assert SumOfSquares().threshold((100,), bounded=True) == 50.0
    assert Sparse(0.6).threshold((100,)) == Sparse(1.0).threshold((100,)) == 100.0
    assert Regions(2, 2).threshold((3, 8, 8)) == 48.0
    assert Negative(MeanOfSquares()).threshold((100,), bounded=True) == -0.5


@torch.no_grad()
def test_a_fresh_net_on_normalised_input_is_undecided() -> None:
    net = nets.mlp([400, 400, 400])
    h = activities((400,), 200).float()
    for block in net:
        h = block(h / h.square().mean(1, keepdim=True).sqrt())
        for name in ("sum-of-squares", "mean-of-squares", "sum-of-absolutes", "sparse"):
            g = goodness(name)
            assert float(g(h).mean()) == pytest.approx(g.threshold((400,)), rel=0.25), name


def test_only_the_most_active_units_of_a_row_count() -> None:
    h = torch.tensor([[1.0, -5.0, 2.0, 0.0], [3.0, 0.5, 0.1, -4.0]], requires_grad=True)
    g = Sparse(0.25)(h)
    assert g.flatten().tolist() == [25.0, 16.0]
    g.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [[0.0, -10.0, 0.0, 0.0], [0.0, 0.0, 0.0, -8.0]]
    assert Sparse(0.01).count(10) == 1


def test_groups_and_regions_are_sites_of_their_own() -> None:
    h = torch.zeros(1, 4, 6, 6)
    h[0, 3, 0, 5] = 2.0
    assert ChannelGroups(2)(h).tolist() == [[0.0, 4.0]]
    torch.testing.assert_close(Regions(2, 2)(h), torch.tensor([[0.0, 4.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (ChannelGroups(3), (10,), "10 channels or units cannot be split into 3"),
        (ChannelGroups(3), (4, 6, 6), "4 channels or units cannot be split into 3"),
        (Regions(), (10,), "regions need images"),
        (Regions(7, 2), (4, 6, 6), "7 x 2 regions do not fit into an image of 6 x 6"),
        (Negative(Regions(2, 7)), (4, 6, 6), "2 x 7 regions do not fit"),
    ],
)
def test_says_which_blocks_it_cannot_serve(kind: Goodness, shape: tuple[int, ...], words: str) -> None:
    assert words in str(kind.refuses(shape))


@pytest.mark.parametrize("name", GOODNESS)
def test_by_name_and_negated(name: str) -> None:
    found = goodness(name)
    assert type(found) is GOODNESS[name]
    assert goodness(found) is found
    assert goodness(f"negative-{name}") == Negative(found)


def test_by_name_with_options() -> None:
    assert goodness("channel-groups", groups=10, mean=True) == ChannelGroups(10, mean=True)
    assert goodness("negative-sparse", share=0.2) == Negative(Sparse(0.2))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sum-of-square", "did you mean 'sum-of-squares'"),
        ("negative-mean-of-square", "did you mean 'negative-mean-of-squares'"),
        ("zzz", "there are sum-of-squares"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        goodness(name)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="other options than share"):
        goodness("sum-of-squares", share=0.1)
    with pytest.raises(UsageError, match="must lie in"):
        goodness("sparse", share=0.0)
    with pytest.raises(UsageError, match="at least one group"):
        ChannelGroups(0)
    with pytest.raises(UsageError, match="at least one of each"):
        Regions(2, 0)


def test_serves_the_blocks_of_a_convolutional_net() -> None:
    net = nets.conv((1, 16, 16), [4, 8])
    h = torch.rand(3, 1, 16, 16)
    for i, block in enumerate(net):
        h = block(h)
        shape = nets.shapes(net, (1, 16, 16))[i]
        assert ChannelGroups(4)(h).shape == (3, 4)
        assert (Regions().refuses(shape) is None) == (h.dim() == 4)
    assert isinstance(net[-1].pool, nn.Sequential)
