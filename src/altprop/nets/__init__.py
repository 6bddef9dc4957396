"""Networks as rows of blocks."""

from altprop.nets.block import Block, affine, input_shape, output_layer, shapes
from altprop.nets.conv import conv
from altprop.nets.cut import blocks
from altprop.nets.fields import Local
from altprop.nets.initialise import initialise
from altprop.nets.local import local
from altprop.nets.mlp import linear, mlp

__all__ = [
    "Block",
    "Local",
    "affine",
    "blocks",
    "conv",
    "initialise",
    "input_shape",
    "linear",
    "local",
    "mlp",
    "output_layer",
    "shapes",
]
