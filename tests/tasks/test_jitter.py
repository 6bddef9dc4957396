"""Jitter: all offsets, equally often, the same for the same place; content moves and nothing else happens to it."""

import pytest
import torch

from altprop.errors import UsageError
from altprop.tasks.jitter import check, moved, offsets


@pytest.mark.parametrize("pixels", [1, 2])
def test_all_offsets_occur_equally_often(pixels: int) -> None:
    n, kinds = 50_000, (2 * pixels + 1) ** 2
    drawn, counts = offsets(n, pixels, seed=0, epoch=0).unique(dim=0, return_counts=True)
    assert len(drawn) == kinds and int(drawn.min()) == -pixels and int(drawn.max()) == pixels
    expected = n / kinds
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 52  # 24 degrees of freedom: 99.9 %


def test_offsets_follow_from_seed_epoch_and_place_alone() -> None:
    torch.manual_seed(5)
    first = offsets(100, 2, seed=1, epoch=3)
    assert torch.equal(first, offsets(100, 2, seed=1, epoch=3))
    assert not torch.equal(first, offsets(100, 2, seed=1, epoch=4))
    assert not torch.equal(first, offsets(100, 2, seed=3, epoch=1))


@pytest.mark.parametrize("image", [(1, 5, 7), (3, 6, 4)])
@pytest.mark.parametrize("flat", [True, False])
def test_a_batch_is_moved_as_pixel_by_pixel(image: tuple[int, ...], flat: bool) -> None:
    pixels, (_, height, width) = 2, image
    by = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    x = torch.rand(len(by), *image)
    expected = torch.zeros_like(x)
    for b, (down, right) in enumerate(by.tolist()):
        for i in range(height):
            for j in range(width):
                if 0 <= i + down < height and 0 <= j + right < width:
                    expected[b, :, i + down, j + right] = x[b, :, i, j]
    given = x.flatten(1) if flat else x
    found = moved(given, by, pixels, image)
    assert found.shape == given.shape and found.is_contiguous()
    assert torch.equal(found.view_as(x), expected)


def test_content_that_stays_inside_is_preserved() -> None:
    x = torch.zeros(25, 1, 9, 9)
    x[:, :, 3:6, 3:6] = torch.rand(25, 1, 3, 3)
    by = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    there = moved(x, by, 2, (1, 9, 9))
    assert torch.equal(there.flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    assert torch.equal(moved(there, -by, 2, (1, 9, 9)), x)


@pytest.mark.parametrize(
    ("pixels", "image", "words"),
    [(2, (), "inputs are none"), (-1, (1, 8, 8), "positive number of pixels"), (8, (1, 8, 9), "out of sight")],
)
def test_what_cannot_be_moved_is_refused(pixels: int, image: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check(pixels, image)
