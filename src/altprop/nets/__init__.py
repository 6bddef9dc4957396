"""Networks as rows of blocks."""

from altprop.nets.analogue import NoisyLinear
from altprop.nets.black_box import BlackBox, black_box
from altprop.nets.block import Block, affine, after, input_shape, onward, output_layer, shapes
from altprop.nets.boxed import boxed
from altprop.nets.conv import conv, vgg8b
from altprop.nets.curves import Curves
from altprop.nets.cut import blocks
from altprop.nets.fields import Local
from altprop.nets.initialise import initialise
from altprop.nets.lateral import Lateral
from altprop.nets.local import local
from altprop.nets.mlp import linear, mlp
from altprop.nets.neurons import Cell, LeakyIntegrateAndFire, LeakyRate, MeanOverTime
from altprop.nets.observe import Observed, observe
from altprop.nets.recurrent import Hold, RecurrentIntegrateAndFire, recurrent_spiking
from altprop.nets.residual import Residual, Scaled, residual
from altprop.nets.settling import Settling
from altprop.nets.soft_hebb import Triangle, soft_hebb, soft_hebb_mlp
from altprop.nets.spike_coded import spike_coded
from altprop.nets.step import Sign
from altprop.nets.temporal import rates, spiking
from altprop.nets.whiten import Centre, Whiten, centred, whitened

__all__ = [
    "BlackBox",
    "Block",
    "Cell",
    "Centre",
    "Curves",
    "Hold",
    "Lateral",
    "LeakyIntegrateAndFire",
    "LeakyRate",
    "Local",
    "MeanOverTime",
    "NoisyLinear",
    "Observed",
    "RecurrentIntegrateAndFire",
    "Residual",
    "Scaled",
    "Settling",
    "Sign",
    "Triangle",
    "Whiten",
    "affine",
    "after",
    "black_box",
    "blocks",
    "boxed",
    "centred",
    "conv",
    "initialise",
    "input_shape",
    "linear",
    "local",
    "mlp",
    "observe",
    "onward",
    "output_layer",
    "rates",
    "recurrent_spiking",
    "residual",
    "shapes",
    "soft_hebb",
    "soft_hebb_mlp",
    "spike_coded",
    "spiking",
    "vgg8b",
    "whitened",
]
