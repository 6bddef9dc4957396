"""A step: an activation of two values, for binary nets."""

import torch
from torch import Tensor

from altprop.nets.observe import Observed


class Sign(Observed):
    """+1 where z >= 0, else -1. A loss on the block looks at z cut off at -1 and 1.

    Arguments:
        straight_through: whether the output has the derivative of the cut-off z (Bengio et al. 2013, arXiv 1308.3432);
            otherwise it has none, as it is.
    """

    def __init__(self, straight_through: bool = False) -> None:
        super().__init__()
        self.straight_through = straight_through

    def respond(self, z: Tensor) -> tuple[Tensor, Tensor]:
        seen = z.clamp(-1.0, 1.0)
        out = torch.where(z.detach() >= 0, 1.0, -1.0).to(z)
        return (seen + (out - seen).detach() if self.straight_through else out), seen
