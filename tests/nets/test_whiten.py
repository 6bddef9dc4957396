"""Blocks that centre and whiten, against statistics of all the data at once."""

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.errors import UsageError


def correlated(samples: int, *shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    n = int(torch.Size(shape).numel())
    mixing = torch.randn(n, n, generator=draw, dtype=torch.float64)
    rows = torch.randn(samples, n, generator=draw, dtype=torch.float64) @ mixing + torch.arange(n)
    return rows.view(samples, *shape)


def fed(block: nn.Module, x: torch.Tensor, sizes: list[int]) -> nn.Module:
    block.double()
    for part in x.split(sizes):
        block(part)
    return block.eval()


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_centre_subtracts_the_mean_of_all_samples_whatever_the_batches(shape: tuple[int, ...]) -> None:
    x = correlated(60, *shape)
    block = fed(nets.Centre(shape), x, [1, 20, 32, 7])
    torch.testing.assert_close(block(x), x - x.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (1, 3, 2)])
def test_zca_whitens_and_stays_nearest_to_its_input(shape: tuple[int, ...]) -> None:
    x = correlated(100, *shape)
    block = fed(nets.Whiten(shape, eps=1e-12), x, [10] * 10)
    z = block(x)
    assert z.shape == x.shape
    rows, away = z.flatten(1), (x - x.mean(0)).flatten(1)
    torch.testing.assert_close(rows.T @ rows / 100, torch.eye(rows.shape[1], dtype=z.dtype), rtol=0, atol=1e-9)
    cross = away.T @ rows / 100  # of ZCA: C^1/2, symmetric and positive
    torch.testing.assert_close(cross, cross.T, rtol=0, atol=1e-9)
    assert float(torch.linalg.eigvalsh(cross)[0]) > 0


def test_pca_gives_the_largest_components_white() -> None:
    x = correlated(100, 6)
    z = fed(nets.Whiten((6,), 2, eps=1e-12), x, [10] * 10)(x)
    torch.testing.assert_close(z.T @ z / 100, torch.eye(2, dtype=z.dtype), rtol=0, atol=1e-9)
    away = x - x.mean(0)
    _, axes = torch.linalg.eigh(away.T @ away / 100)
    assert float((z - z @ torch.linalg.pinv(z) @ z).abs().max()) < 1e-9
    left = away @ axes[:, :4]  # what the smaller components say of it: nothing
    assert float((left.T @ z / 100).abs().max()) < 1e-9


def test_a_new_matrix_is_turned_to_the_one_before() -> None:
    x = correlated(2000, 6)
    block = nets.Whiten((6,), 3).double()
    block(x[:1000])
    before = block(x[:1]).clone()
    block(x[1000:])  # the second batch: a new matrix
    axes = nn.functional.cosine_similarity(before, block(x[:1]))
    assert float(axes) > 0.98


def test_matrices_are_new_at_1_2_5_10_20_50() -> None:
    x = correlated(600, 4)
    block = nets.Whiten((4,)).double()
    found = []
    for count, part in enumerate(x.split(10), 1):
        before = block.matrix.clone()
        block(part)
        if not torch.equal(before, block.matrix):
            found.append(count)
    assert found == [1, 2, 5, 10, 20, 50]


@pytest.mark.parametrize("kind", [nets.Centre, nets.Whiten])
def test_evaluation_changes_no_bit(kind: type[nets.Centre]) -> None:
    block = fed(kind((4,)), correlated(20, 4), [10, 10])
    before = {k: v.clone() for k, v in block.state_dict().items()}
    block(correlated(30, 4))
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


def test_a_memory_follows_a_mean_that_moves() -> None:
    forgetful, patient = nets.Centre((1,), memory=10), nets.Centre((1,))
    for value in [0.0] * 50 + [1.0] * 50:
        for block in (forgetful, patient):
            block(torch.full((2, 1), value))
    assert float(forgetful.mean) > 0.999 and float(patient.mean) == pytest.approx(0.5, abs=1e-5)


def test_nets_get_a_block_before_each_layer_once() -> None:
    net = nets.conv((1, 8, 8), [2, 3])
    centred = nets.centred(net, (1, 8, 8))
    assert [type(block) for block in centred] == [nets.Centre, nets.Block] * 2
    assert [tuple(b.mean.shape) for b in centred if isinstance(b, nets.Centre)] == [(1, 8, 8), (2, 4, 4)]
    assert len(nets.centred(centred, (1, 8, 8))) == 4
    assert isinstance(nets.whitened(net, (1, 8, 8))[0], nets.Whiten)


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="take nets"):
        nets.Whiten((3, 64, 64))
    with pytest.raises(UsageError, match="give 1 to 4 outputs"):
        nets.Whiten((4,), 5)
    with pytest.raises(UsageError, match="at least one sample"):
        nets.Centre((4,), memory=0)
