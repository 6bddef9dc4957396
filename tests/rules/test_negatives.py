"""No negative is ever the positive; negatives are drawn as said; masks are blobs."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from altprop.errors import UsageError
from altprop.rules.forward_only.negatives import (
    blur,
    blurred,
    hard_negatives,
    hybrids,
    last_symbols,
    masks,
    partners,
    uniform_negatives,
)

seeds = st.integers(0, 2**32)


def drawing(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=drawing(seed))


# Wrong labels.


@given(seeds, st.integers(2, 12), st.floats(-1e4, 1e4))
def test_a_drawn_label_is_never_the_true_one(seed: int, classes: int, scale: float) -> None:
    g = drawing(seed)
    y = torch.randint(classes, (50,), generator=g)
    logits = scale * torch.randn(50, classes, generator=g)
    for negative in (hard_negatives(logits, y, g), uniform_negatives(y, classes, g)):
        assert not (negative == y).any()
        assert set(negative.tolist()) <= set(range(classes))


def test_labels_follow_their_distributions() -> None:
    g = drawing(0)
    p = torch.tensor([0.5, 0.1, 0.3, 0.1])
    y = torch.zeros(20000, dtype=torch.int64)
    hard = torch.bincount(hard_negatives(p.log().expand(20000, 4), y, g), minlength=4) / 20000
    torch.testing.assert_close(hard, torch.tensor([0.0, 0.2, 0.6, 0.2]), rtol=0.0, atol=0.02)
    uniform = torch.bincount(uniform_negatives(y + 1, 4, g), minlength=4) / 20000
    torch.testing.assert_close(uniform, torch.tensor([1 / 3, 0.0, 1 / 3, 1 / 3]), rtol=0.0, atol=0.02)


# Windows of a sequence.


@given(seeds, st.integers(2, 6), st.integers(1, 5))
def test_only_the_last_symbol_is_wrong(seed: int, symbols: int, length: int) -> None:
    g = drawing(seed)
    text = torch.randint(symbols, (20, length), generator=g)
    windows = one_hot(text, symbols).float()
    logits = 10 * torch.randn(20, symbols, generator=g)
    negative = last_symbols(windows, logits, text[:, -1], g)
    assert torch.equal(negative[:, :-1], windows[:, :-1])
    assert torch.equal(negative.sum(2), windows.sum(2)) and set(negative.unique().tolist()) == {0.0, 1.0}
    assert not (negative[:, -1].argmax(1) == text[:, -1]).any()


def test_the_last_symbol_is_drawn_from_the_prediction_without_the_true_one() -> None:
    windows = one_hot(torch.tensor([[1, 2]]), 4).double().expand(20000, 2, 4)
    logits = torch.tensor([0.1, 0.3, 0.5, 0.1], dtype=torch.float64).log().expand(20000, 4)
    y = torch.full((20000,), 2)
    share = last_symbols(windows, logits, y, drawing(0))[:, -1].mean(0)
    expected = torch.tensor([0.2, 0.6, 0.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(share, expected, rtol=0.0, atol=0.02)


def test_windows_that_end_in_another_symbol_are_refused() -> None:
    windows = one_hot(torch.tensor([[0, 1], [1, 0]]), 2).float()
    with pytest.raises(UsageError, match="must end in its symbol"):
        last_symbols(windows, torch.zeros(2, 2), torch.tensor([1, 1]), drawing(0))
    with pytest.raises(UsageError, match="two symbols or more"):
        last_symbols(windows[..., :1], torch.zeros(2, 1), torch.tensor([0, 0]), drawing(0))


# Masks.


@given(seeds, st.integers(1, 6), st.integers(2, 6), st.integers(0, 12))
@settings(max_examples=50)
def test_no_mask_is_whole(seed: int, height: int, width: int, blurs: int) -> None:
    drawn = masks(30, (height, width), blurs, drawing(seed))
    assert drawn.shape == (30, 1, height, width) and drawn.dtype == torch.bool
    assert drawn.flatten(1).any(1).all() and not drawn.flatten(1).all(1).any()


def test_masks_are_balanced_blobs_that_grow_with_blurs() -> None:
    borders = []
    for blurs in (0, 1, 3, 10, 20):
        m = masks(300, (28, 28), blurs, drawing(1))
        assert float(m.float().mean()) == pytest.approx(0.5, abs=0.01)
        borders.append(float((m[..., 1:] != m[..., :-1]).float().mean() + (m[:, :, 1:] != m[:, :, :-1]).float().mean()))
    assert borders[0] == pytest.approx(1.0, abs=0.02)  # bits: every second neighbour differs, along both axes
    assert all(after < 0.85 * before for before, after in pairwise(borders))
    assert borders[3] < 0.25  # a run of about ten pixels


def test_a_blur_is_a_quarter_a_half_a_quarter_along_both_axes() -> None:
    x = images(2, 3, 5, 4).double()
    expected = x
    for _ in range(3):
        e = torch.nn.functional.pad(expected, (1, 1, 1, 1), mode="replicate")
        e = e[..., :-2] / 4 + e[..., 1:-1] / 2 + e[..., 2:] / 4
        expected = e[..., :-2, :] / 4 + e[..., 1:-1, :] / 2 + e[..., 2:, :] / 4
    torch.testing.assert_close(blur(x, 3), expected)


@pytest.mark.parametrize(
    ("size", "blurs", "words"),
    [((1, 1), 2, "always whole"), ((4, 4), -1, "cannot be blurred"), ((2, 2), 1000, "stay whole after 1000 blurs")],
)
def test_masks_that_would_be_whole_are_refused(size: tuple[int, int], blurs: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        masks(3, size, blurs, drawing(0))


# Hybrids.


@given(seeds, st.integers(2, 9), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_a_hybrid_is_neither_of_its_images(seed: int, count: int, labelled: bool, bits: bool) -> None:
    """Images that differ in few pixels, in which most masks leave one of them whole."""
    x = torch.zeros(count, 1, 4, 4)
    for i in range(count):
        x[i].view(-1)[[(3 * i) % 16, (3 * i + 1) % 16, (3 * i + 5) % 16]] = 1.0 if bits else 1.0 + i
    y = torch.arange(count) % 2 if labelled else None
    hybrid = hybrids(x, drawing(seed), blurs=2, y=y)
    for i in range(count):
        others = [j for j in range(count) if j != i and (y is None or y[j] != y[i])]
        assert not torch.equal(hybrid[i], x[i])
        assert any(_mixes(hybrid[i], x[i], x[j]) for j in others)


def _mixes(hybrid: Tensor, one: Tensor, other: Tensor) -> bool:
    ours, theirs = hybrid == one, hybrid == other
    return bool((ours | theirs).all()) and not bool(ours.all()) and not bool(theirs.all())


def test_hybrids_take_whole_pixels_and_half_of_each_image() -> None:
    x = images(40, 3, 12, 12)
    hybrid = hybrids(x, drawing(3), blurs=4)
    kept = hybrid == x
    assert torch.equal(kept, kept[:, :1].expand_as(kept))  # one mask for all channels
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_flat_images_are_mixed_alike() -> None:
    x = images(10, 2, 6, 5)
    flat = hybrids(x.flatten(1), drawing(4), blurs=2, shape=(2, 6, 5))
    assert torch.equal(flat, hybrids(x, drawing(4), blurs=2).flatten(1))


@given(seeds, st.integers(2, 8))
def test_partners_are_others(seed: int, batch: int) -> None:
    rows = torch.arange(batch)
    y = torch.randint(2, (batch,), generator=drawing(seed))
    y[:2] = torch.tensor([0, 1])
    assert not (partners(batch, rows, drawing(seed)) == rows).any()
    assert not (y[partners(batch, rows, drawing(seed), y)] == y).any()


def test_partners_are_drawn_alike() -> None:
    y = torch.tensor([0, 0, 1, 2, 2])
    rows = torch.zeros(20000, dtype=torch.int64)
    for labels, expected in ((None, [0, 0.25, 0.25, 0.25, 0.25]), (y, [0, 0, 1 / 3, 1 / 3, 1 / 3])):
        share = torch.bincount(partners(5, rows, drawing(0), labels), minlength=5) / 20000
        torch.testing.assert_close(share, torch.tensor(expected), rtol=0.0, atol=0.02)


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (images(1, 1, 8, 8), {}, "batch of one"),
        (images(1, 1, 8, 8).expand(5, 1, 8, 8), {}, "too much alike"),
        (images(4, 1, 8, 8), {"y": torch.ones(4, dtype=torch.int64)}, "all samples of the batch are of one class"),
        (images(4, 64), {}, "give shape="),
        (images(4, 64), {"shape": (1, 8, 9)}, "give shape="),
        (images(4, 2, 1, 1), {}, "always whole"),
    ],
)
def test_batches_without_hybrids_are_refused(x: Tensor, options: dict[str, object], words: str) -> None:
    options = {"blurs": 2} | options
    with pytest.raises(UsageError, match=words):
        hybrids(x, drawing(0), **options)


# Blurred images.


@given(seeds, st.integers(1, 8))
@settings(max_examples=30)
def test_a_blurred_image_is_another_image(seed: int, blurs: int) -> None:
    x = (images(6, 2, 5, 5, seed=seed) < 0.1).float()
    x[:, 0, 2, 2] = 2.0
    assert not (blurred(x, blurs) == x).flatten(1).all(1).any()


def test_blurring_keeps_the_mean_and_lowers_the_contrast() -> None:
    x = images(6, 1, 9, 9).double()
    y = blurred(x.flatten(1), 3, shape=(1, 9, 9)).view_as(x)
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)))
    assert bool((y.std((2, 3)) < 0.5 * x.std((2, 3))).all())


def test_images_that_blurring_leaves_alone_are_refused() -> None:
    x = images(3, 2, 5, 5)
    x[1] = torch.tensor([0.3, 0.7]).view(2, 1, 1)
    with pytest.raises(UsageError, match="constant image"):
        blurred(x)
    with pytest.raises(UsageError, match="blur at least once"):
        blurred(images(3, 2, 5, 5), 0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: masks(20, (8, 8), 3, g),
        lambda g: hybrids(images(20, 1, 8, 8), g, blurs=3),
        lambda g: partners(20, torch.arange(20), g, torch.arange(20) % 3),
    ],
)
def test_draws_come_from_the_generator_alone(draw: Callable[[torch.Generator], Tensor]) -> None:
    before = torch.get_rng_state()
    assert torch.equal(draw(drawing(7)), draw(drawing(7)))
    assert not torch.equal(draw(drawing(7)), draw(drawing(8)))
    assert torch.equal(before, torch.get_rng_state())
