"""Small nets on top of a module, which only training has: readouts, and decoders back to the net's input."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets

FEATURES = 2048
"""How many values of an image a readout sees at most (Nøkland & Eidnes 2019)."""
DECODED = 12
"""Channels of a decoder's hidden convolution (Wang et al. 2021)."""


class Readout(nn.Module):
    """A linear layer on what a block gives for a sample; images (channels, height, width) are averaged before, their
    sides halved until there are no more than `FEATURES` values."""

    def __init__(self, shape: Sequence[int], outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sides = pooled_sides(shape) if len(shape) == 3 else None
        features = math.prod(shape) if self.sides is None else shape[0] * math.prod(self.sides)
        self.linear = nets.linear(features, outputs, "lecun", generator)

    def forward(self, h: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        if self.sides is not None and h.shape[2:] != self.sides:
            h = nn.functional.adaptive_avg_pool2d(h, self.sides)
        scores: Tensor = self.linear(h.flatten(1))
        return scores


def pooled_sides(shape: Sequence[int]) -> tuple[int, int]:
    channels, height, width = shape
    while channels * height * width > FEATURES and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    return height, width


class Decoder(nn.Module):
    """From what a block gives for a sample to the net's input: images to images by a bilinear upsampling and two
    convolutions, anything else by a linear layer."""

    def __init__(self, shape: Sequence[int], image: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.image = tuple(image)
        self.upsampled = len(shape) == len(image) == 3
        if self.upsampled:
            hidden = convolution(shape[0], DECODED, "kaiming", generator)
            layers = [hidden, nn.ReLU(), convolution(DECODED, image[0], "lecun", generator)]
        else:
            layers = [nn.Flatten(), nets.linear(math.prod(shape), math.prod(image), "lecun", generator)]
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        if self.upsampled:
            h = nn.functional.interpolate(h, self.image[1:], mode="bilinear", align_corners=False)
        x: Tensor = self.layers(h)
        return x.view(-1, *self.image)


def convolution(inputs: int, outputs: int, init: str, generator: torch.Generator, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, filled from the generator."""
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1, bias=bias)
    nets.initialise(layer, init, generator)
    return layer
