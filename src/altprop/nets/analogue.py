"""A linear layer of analogue products, each of which is off by a little, another time by another amount."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.black_box import BlackBox
from altprop.nets.boxes import Draws


class NoisyLinear(nn.Linear):
    """`z_i = b_i + sum_j w_ij x_j (1 + strength e_ij)`, with normal e_ij of its own for every product and sample.

    The sums are drawn as they are distributed: normal, with variance strength^2 sum_j (w_ij x_j)^2. The derivative by
    the weights is what the layer is given, x, with noise or without. One by x is refused, for the way back would be as
    noisy as the way forth, unless it is `straight_through`: taken as if there were no noise.

    Arguments:
        layer: whose weights it has (they are shared).
        strength: the standard deviation of a product, as a share of its size.
        seed: of the noise.
    """

    def __init__(self, layer: nn.Linear, strength: float, seed: int, *, straight_through: bool = False) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        if not strength >= 0:
            raise UsageError(f"noise of strength {strength}: give a number that is 0 (no noise) or larger")
        self.weight, self.bias = layer.weight, layer.bias
        self.strength, self.draws = strength, Draws(seed)
        self.gate = BlackBox(torch.clone, straight_through=straight_through)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        z = super().forward(self.gate(x))
        with torch.no_grad():
            size = self.strength * nn.functional.linear(x.square(), self.weight.square()).sqrt()
            noise = size * torch.randn(z.shape, generator=self.draws(), device="cpu").to(z)
        return z + noise
