"""Magnitudes for feedback weights that take only their signs from the forward ones."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

MAGNITUDES = ("unit", "fixed", "batch")


def glorot(weight: Float[Tensor, "outputs inputs ..."]) -> float:
    """sqrt(2 / (fan-in + fan-out)) (Glorot & Bengio 2010), with the fans of a convolution as torch.nn.init has them."""
    places = weight[0, 0].numel()
    return math.sqrt(2.0 / (places * (weight.size(0) + weight.size(1))))


def sizes(
    weight: Float[Tensor, "outputs inputs ..."], scale: float, generator: torch.Generator
) -> Float[Tensor, "outputs inputs ..."]:
    """Random magnitudes: uniform from zero, with `scale` times Glorot's standard deviation as root mean square.

    Of 16 bits each, for four of them cost as much as one float: brSF draws them in every step.
    """
    bits = torch.empty(-(-weight.numel() // 4), dtype=torch.int64).random_(-(2**63), 2**63 - 1, generator=generator)
    drawn = bits.view(torch.int16)[: weight.numel()].view(weight.shape).to(weight)
    return drawn.add_(2**15 + 0.5).mul_(scale * glorot(weight) * math.sqrt(3.0) / 2**16)


@torch.no_grad()
def signed(
    magnitudes: float | Float[Tensor, "outputs inputs ..."], weight: Float[Tensor, "outputs inputs ..."]
) -> Float[Tensor, "outputs inputs ..."]:
    """The magnitudes with the signs of the weights; nothing where a weight is zero."""
    return weight.sign().mul_(magnitudes)
