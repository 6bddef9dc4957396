"""How alike patches and weights are."""

import torch
from jaxtyping import Float
from torch import Tensor

from altprop.rules.hebbian.patches import Layer, along, respond


def cosine(
    layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
) -> Float[Tensor, "batch units ..."]:
    """u / (||x|| ||w||) of each patch and unit, where u = W x; 0 where one of them is."""
    norms = layer.weight.flatten(1).norm(dim=1)
    sizes = respond(layer, x.square(), torch.ones_like(layer.weight[:1])).sqrt_()
    return u / (along(norms, u) * sizes).clamp_min(torch.finfo(u.dtype).eps)
