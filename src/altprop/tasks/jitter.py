"""Jitter: every training image is moved by a few pixels, each by an offset of its own (Hinton 2022, section 3.3).

Offsets are drawn for a whole epoch at once, so that they follow from seed, epoch and place alone: a run that was
stopped goes on with the same ones.
"""

from hashlib import sha256

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from altprop.errors import UsageError


def offsets(n: int, pixels: int, seed: int, epoch: int) -> Int64[Tensor, "n 2"]:
    """For the n places of one epoch: rows and columns to move by, each of the (2 pixels + 1)^2 offsets equally likely.

    A pure function of its arguments.
    """
    mixed = sha256(f"altprop jitter {seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
    return torch.randint(-pixels, pixels + 1, (n, 2), generator=generator)


def moved(
    x: Float32[Tensor, "batch ..."], by: Int64[Tensor, "batch 2"], pixels: int, image: tuple[int, ...]
) -> Float32[Tensor, "batch ..."]:
    """The batch with each image moved down and right by its offset, no entry beyond +-pixels; zeros come in.

    x: images, (batch, channels, height, width), or the same as vectors, (batch, channels * height * width); the result
    has its shape. image: (channels, height, width). Raises UsageError where the inputs are no images, or too small.
    """
    check(pixels, image)
    _, height, width = image
    padded = nn.functional.pad(x.view(-1, *image), (pixels, pixels, pixels, pixels))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = (pixels - by).unbind(1)
    return windows[torch.arange(len(x), device=x.device), :, down, right].view(x.shape)


def check(pixels: int, image: tuple[int, ...]) -> None:
    """Raise UsageError unless images of this shape can be moved by so many pixels."""
    if pixels < 0:
        raise UsageError(f"jitter of {pixels} pixels: give 0 for none, or a positive number of pixels")
    if len(image) != 3:
        raise UsageError("jitter moves images, and this task's inputs are none: leave jitter at 0")
    if pixels >= min(image[1:]):
        raise UsageError(f"jitter of {pixels} pixels moves an image of {image[1]}x{image[2]} out of sight: take fewer")
