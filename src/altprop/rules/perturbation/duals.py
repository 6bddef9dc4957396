"""Values with their tangents: PyTorch's forward-mode differentiation, made ready without its warnings.

The first dual tensor makes PyTorch load a part of itself that its own later parts call deprecated. That is nothing to a
user, and an error to one who turns warnings into errors, so it happens here.
"""

import warnings

import torch
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

__all__ = ["NO_TANGENT", "dual_level", "make_dual", "unpack_dual"]

NO_TANGENT = (
    "an activation hands no derivative on, and this rule moves directions through it; give it one (derivative=True of "
    "spiking neurons, straight_through=True of steps), or take NodePerturbation"
)

with warnings.catch_warnings(), dual_level():
    warnings.simplefilter("ignore", DeprecationWarning)
    make_dual(torch.zeros(()), torch.zeros(()))
