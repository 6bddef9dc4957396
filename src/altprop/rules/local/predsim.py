"""Predsim: every block learns to predict the class, and to be alike for inputs of one class and unlike for others.

Nøkland & Eidnes 2019 (arXiv 1901.06656). With blocks h_l = F_l(h_{l-1}), a linear classifier C_l (on images averaged to
at most 2048 values), a linear map P_l (a 3x3 convolution for images) and a batch of n samples:

    s(z)_ij = cosine of z_i - mean(z_i) and z_j - mean(z_j), each mean over one row (images of more than 3 channels:
              z_i is the standard deviation of every channel over its places)
    L_l = (1 - beta) CE(C_l(h_l), y) + beta mean_ij (s(P_l h_l)_ij - s(onehot(y))_ij)^2
    dW = dL_l/dW for the weights of F_l, C_l and P_l, with h_{l-1} held fixed;    output block: CE

Departures from the paper:
1. The losses look at what a whole block gives, behind its pooling; the authors' come before the pooling, which costs
   four times as much.
2. Adam without the authors' steps of the learning rate, no dropout and no batch normalisation but the net's own.
3. P_l of a vector makes no more than 1024 values, for the sake of flattened images. C_l starts at zero.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize, one_hot

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.local.heads import Readout, convolution
from altprop.rules.local.modules import Modular


class PredSim(Modular):
    """Predsim (Nøkland & Eidnes 2019) for blocks of any kind, with an output block.

    Arguments:
        beta: the weight of similarity against prediction, from 0 (prediction alone) to 1.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.i" (C_i and P_i).
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self, net: nn.Sequential, problem: Problem | None = None, *, beta: float = 0.99, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0 <= beta <= 1:
            raise UsageError(f"PredSim: beta={beta} must lie between 0 and 1")
        self.beta = beta
        self.cut([range(i, i + 1) for i in range(len(net))])

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "it compares inputs by their classes, and a regression has none; choose another rule"
        return super().supports(net, problem)

    def head(self, shape: tuple[int, ...]) -> nn.Module:
        return Head(shape, self.problem.outputs, self.generator)

    def local_loss(self, last: int, h: Tensor, x: Tensor, y: Tensor) -> Float[Tensor, ""]:
        head = self.heads[str(last)]
        wanted = similarity(one_hot(y, self.problem.outputs).to(h.dtype))
        prediction = cross_entropy(head.get_submodule("readout")(h), y)
        return (1 - self.beta) * prediction + self.beta * mse_loss(similarity(head.get_submodule("project")(h)), wanted)


PROJECTED = 1024
"""The most values that P_l makes of a vector: a flattened image would need a square matrix of millions."""


class Head(nn.Module):
    """C_l and P_l of a block that gives this shape."""

    def __init__(self, shape: tuple[int, ...], outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.readout = Readout(shape, outputs, generator)
        nn.init.zeros_(self.readout.linear.weight)
        self.project = projection(shape, generator)


def projection(shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
    """P_l: a 3x3 convolution for images, a linear layer for anything else."""
    if len(shape) != 3:
        return nets.linear(shape[-1], min(shape[-1], PROJECTED), "lecun", generator, bias=False)
    return convolution(shape[0], shape[0], "lecun", generator, bias=False)


def similarity(z: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch batch"]:
    """s(z); a row without variation is like no other."""
    spread = z.dim() == 4 and z.size(1) > 3 and z[0, 0].numel() > 1
    rows = z.flatten(2).std(2) if spread else z.flatten(1)
    rows = normalize(rows - rows.mean(1, keepdim=True), eps=1e-8)
    return rows @ rows.t()
