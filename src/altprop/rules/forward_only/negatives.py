"""Negatives: samples that look like positives and are none. No function here can return a positive.

Wrong labels, hybrid images and windows of the net's own making are Hinton's (2022, arXiv 2212.13345). Random numbers
come from the generator alone and are drawn on the CPU.
"""

from functools import cache

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError

ATTEMPTS = 100
"""How often masks and hybrids that are no good are drawn again before the images are blamed."""

# Wrong labels.


def hard_negatives(
    logits: Float[Tensor, "batch classes"], y: Shaped[Tensor, " batch"], generator: torch.Generator
) -> Shaped[Tensor, " batch"]:
    """Wrong labels, drawn from softmax(logits) without the true class.

    By exponential races (the smallest e_k / p_k wins, in logarithms): the true class, struck out after the draw,
    cannot win however sure the head is of it.
    """
    noise = torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=generator)
    race = logits - noise.clamp_min_(torch.finfo(logits.dtype).tiny).log_().to(logits.device)
    return race.scatter_(1, y.unsqueeze(1), -torch.inf).argmax(1)


def uniform_negatives(
    y: Shaped[Tensor, " batch"], classes: int, generator: torch.Generator
) -> Shaped[Tensor, " batch"]:
    """Wrong labels, all alike."""
    return (y + torch.randint(1, classes, y.shape, generator=generator).to(y.device)) % classes


def last_symbols(
    windows: Float[Tensor, "batch length symbols"],
    logits: Float[Tensor, "batch symbols"],
    y: Shaped[Tensor, " batch"],
    generator: torch.Generator,
) -> Float[Tensor, "batch length symbols"]:
    """One-hot windows whose last symbol y the net has predicted itself: drawn from softmax(logits) without y.

    Raises UsageError where y is not what the window ends in, since the negative might then be the window itself.
    """
    if windows.size(2) < 2:
        raise UsageError("last_symbols: windows of one symbol have no wrong one; give two symbols or more")
    if not torch.equal(windows[:, -1].argmax(1), y):
        raise UsageError("last_symbols: every window must end in its symbol y, which the logits predict")
    wrong = nn.functional.one_hot(hard_negatives(logits, y, generator), windows.size(2)).to(windows)
    return torch.cat([windows[:, :-1], wrong.unsqueeze(1)], dim=1)


# Images.


def masks(
    count: int, size: tuple[int, int], blurs: int, generator: torch.Generator
) -> Bool[Tensor, "count 1 height width"]:
    """Random blobs: bits, blurred repeatedly with [1/4, 1/2, 1/4] along both axes, larger the more often, on the CPU.

    A pixel is on where it is above its own mask's mean (Hinton: above 1/2, which masks of large blobs seldom cross).
    So no mask is whole: each has pixels that are on and some that are off.
    """
    if size[0] * size[1] < 2:
        raise UsageError(f"masks of {size[0]} x {size[1]} pixels are always whole; give images of two pixels or more")
    found = torch.empty(count, 1, *size, dtype=torch.bool)
    wanted = torch.arange(count)
    for _ in range(ATTEMPTS):
        bits = torch.rand(len(wanted), 1, *size, generator=generator) < 0.5
        field = blur(bits.double(), blurs)  # in float64 it is exact for ordinary masks, whatever products are set to
        drawn = field > field.mean((2, 3), keepdim=True)
        found[wanted] = drawn
        wanted = wanted[same_rows(drawn, drawn[..., :1, :1])]
        if len(wanted) == 0:
            return found
    raise UsageError(f"masks of {size[0]} x {size[1]} pixels stay whole after {blurs} blurs; blur less often")


def hybrids(
    x: Float[Tensor, "batch ..."],
    generator: torch.Generator,
    *,
    blurs: int = 10,
    shape: tuple[int, int, int] | None = None,
    y: Shaped[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch ..."]:
    """m x_i + (1 - m) x_j: each image with another one of the batch in the holes of its mask.

    Arguments:
        x: images (batch, channels, height, width), or flat ones with their `shape` (channels, height, width).
        blurs: see `masks`; about 10 for images of 28 x 28, fewer for smaller ones.
        y: labels; given, x_j is of another class than x_i.

    A hybrid that is one of its two images is drawn again. Raises UsageError for a batch of one image, of one class
    (with y), or of images so much alike that nothing but themselves comes out.
    """
    images = as_images(x, shape)
    found = images.clone()
    wanted = torch.arange(len(images), device=x.device)
    for _ in range(ATTEMPTS):
        ours, theirs = images[wanted], images[partners(len(images), wanted, generator, y)]
        mask = masks(len(wanted), (images.size(2), images.size(3)), blurs, generator).to(x.device)
        mixed = torch.where(mask, ours, theirs)
        found[wanted] = mixed
        wanted = wanted[same_rows(mixed, ours) | same_rows(mixed, theirs)]
        if len(wanted) == 0:
            return found.view_as(x)
    raise UsageError(
        "hybrids: some images of the batch are too much alike to be mixed into anything but themselves; "
        "give batches of different images"
    )


def partners(
    batch: int, rows: Shaped[Tensor, " rows"], generator: torch.Generator, y: Shaped[Tensor, " batch"] | None = None
) -> Shaped[Tensor, " rows"]:
    """For each of these rows of the batch another one, never itself; with labels, one of another class."""
    if batch < 2:
        raise UsageError("a batch of one sample holds no other to contrast it with; give batches of two or more")
    if y is None:
        return (rows + torch.randint(1, batch, rows.shape, generator=generator).to(rows.device)) % batch
    other = y[rows].unsqueeze(1) != y
    if not bool(other.any(1).all()):
        raise UsageError("all samples of the batch are of one class, so none has a partner of another; mix the classes")
    score = torch.rand(len(rows), batch, generator=generator).to(rows.device)
    return score.masked_fill_(~other, -1.0).argmax(1)


def blurred(
    x: Float[Tensor, "batch ..."], blurs: int = 4, *, shape: tuple[int, int, int] | None = None
) -> Float[Tensor, "batch ..."]:
    """The images, blurred repeatedly with [1/4, 1/2, 1/4] along both axes.

    x and shape are those of `hybrids`. Raises UsageError for images that are constant in each channel: blurring leaves
    them as they are.
    """
    if blurs < 1:
        raise UsageError(f"blurred: blurs={blurs} leaves every image as it is; blur at least once")
    images = as_images(x, shape)
    found = blur(images, blurs)
    channels = images.flatten(2)
    if bool((channels == channels[..., :1]).all(2).all(1).any() | same_rows(found, images).any()):
        raise UsageError("blurred: the batch holds a constant image, which blurring leaves as it is; drop such images")
    return found.view_as(x)


def blur(x: Float[Tensor, "batch channels height width"], times: int) -> Float[Tensor, "batch channels height width"]:
    """Repeated blurring with [1/4, 1/2, 1/4] along both axes, the edge pixels repeated: one product an axis."""
    rows, cols = (blur_matrix(n, times).to(x) for n in x.shape[2:])
    out: Tensor = rows @ (x @ cols.T)
    return out


@cache
def blur_matrix(size: int, times: int) -> Float[Tensor, "size size"]:
    """The matrix of that many blurs along one axis."""
    if times < 0:
        raise UsageError(f"an image cannot be blurred {times} times; give blurs=0 or more")
    once = torch.eye(size, dtype=torch.float64) / 2
    places = torch.arange(size)
    for step in (-1, 1):
        neighbours = (places + step).clamp(0, size - 1)
        once[places, neighbours] += 0.25
    power: Tensor = torch.linalg.matrix_power(once, times)
    return power


def as_images(
    x: Float[Tensor, "batch ..."], shape: tuple[int, int, int] | None
) -> Float[Tensor, "batch channels height width"]:
    """x as images; flat ones take their shape from `shape`."""
    if x.dim() == 4:
        return x
    if shape is None or x[0].numel() != shape[0] * shape[1] * shape[2]:
        raise UsageError(
            f"samples of shape {tuple(x.shape[1:])} are no images; give shape=(channels, height, width) "
            "with as many entries as a sample has"
        )
    return x.reshape(len(x), *shape)


def same_rows(a: Shaped[Tensor, "rows ..."], b: Shaped[Tensor, "rows ..."]) -> Bool[Tensor, " rows"]:
    """Which samples are equal in every entry."""
    return (a == b).flatten(1).all(1)
