"""Fixed lateral kernels: what a unit hears from its own kind at other places, or from units near it on a grid.

difference of Gaussians  at distance r: g(r; s_e) - g(r; s_i), divided so that the centre is 1, where g(r; s) =
                         exp(-r^2 / (2 s^2)) / (2 pi s^2): excitation near, inhibition around it
Gaussian                 between units whose places on a grid are r apart: exp(-r^2 / (2 width^2))
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d


def difference_of_gaussians(
    size: int = 5, excitatory: float = 1.2, inhibitory: float = 1.4
) -> Float[Tensor, "size size"]:
    """Over places; the widths are those of Jimenez Nimmo & Mondragón 2025."""
    away = torch.arange(size, dtype=torch.float64) - size // 2
    squares = away.square().unsqueeze(1) + away.square()
    near, far = (torch.exp(squares / (-2.0 * s * s)) / (s * s) for s in (excitatory, inhibitory))
    kernel = near - far
    return kernel / kernel[size // 2, size // 2]


def over_places(
    kernel: Float[Tensor, "size size"], y: Float[Tensor, "batch units height width"]
) -> Float[Tensor, "batch units height width"]:
    """Each unit's image by itself; beyond its edge there is nothing."""
    images = y.flatten(0, 1).unsqueeze(1)
    return conv2d(images, kernel.to(y)[None, None], padding=len(kernel) // 2).view_as(y)


def near_on_a_grid(units: int, width: float) -> Float[Tensor, "units units"]:
    """The Gaussian between units that lie row by row on a grid as square as can be."""
    columns = math.ceil(math.sqrt(units))
    numbers = torch.arange(units)
    places = torch.stack([numbers // columns, numbers % columns], 1).double()
    return torch.exp(torch.cdist(places, places).square() / (-2.0 * width * width))


def over_units(
    kernel: Float[Tensor, "units units"], y: Float[Tensor, "batch units ..."]
) -> Float[Tensor, "batch units ..."]:
    """What units near it add to each, at every place by itself."""
    return (y.movedim(1, -1) @ kernel.to(y)).movedim(-1, 1)
