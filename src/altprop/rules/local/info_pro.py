"""InfoPro: the net is cut into K modules, each of which keeps what its input holds and what tells the classes apart.

Wang, Ni, Song, Yang & Huang 2021 (arXiv 2101.10832). With modules F_k, decoders D_k back to the net's input x and small
nets C_k on what a module gives:

    h_k = F_k(h_{k-1}),    L_k = a_k R_k + b_k S_k    for k < K, and the problem's own loss for the last module
    R_k = mean of (D_k(h_k) - x)^2                      a bound on the information about the input
    S_k = CE(C_k(h_k), y), or, with loss="contrastive", on z_i = C_k(h_k)_i / |C_k(h_k)_i| and temperature t:
          mean over i of the mean over the others j of i's class of
          log(sum_{m != i} exp(z_i z_m / t)) - z_i z_j / t
    dW = dL_k/dW for the weights of module k, D_k and C_k, with h_{k-1} held fixed

a_k and b_k move in equal steps from the first module's value to that of the last one that has such a loss. With K = 1
this is backpropagation; more modules need less memory.

Departures from the paper:
1. Squared error instead of the cross-entropy of pixels, so that inputs need not lie in [0, 1].
2. C_k averages images to at most 2048 values, and has two linear layers; the authors' starts with a convolution.
   D_k of vectors is linear; that of images has one hidden convolution, as the authors', without its normalisation.
3. Modules have equally many blocks (within one), the output block counted, not equal memory.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.local.heads import Decoder, Readout
from altprop.rules.local.modules import Modular
from altprop.rules.losses import losses

LOSSES = ("supervised", "contrastive")
HIDDEN = 128


class InfoPro(Modular):
    """InfoPro (Wang et al. 2021) for blocks of any kind, with an output block.

    Arguments:
        modules: K, at most as many as there are blocks.
        reconstruction: a_k of the first module and of the last one before the output's.
        discrimination: b_k, likewise.
        loss: S_k: "supervised" (the problem's own loss of a small classifier) or "contrastive".
        temperature: t of the contrastive loss.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.i" (D_k and C_k of the
        module that ends with block i).
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=True,
        memory="grows",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        modules: int = 2,
        reconstruction: tuple[float, float] = (1.0, 0.1),
        discrimination: tuple[float, float] = (1.0, 1.0),
        loss: str = "supervised",
        temperature: float = 0.07,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 1 <= modules <= len(net):
            raise UsageError(f"InfoPro: modules={modules}; the net has {len(net)} blocks, take from 1 to {len(net)}")
        if loss not in LOSSES:
            known = " or ".join(repr(choice) for choice in LOSSES)
            raise UsageError(f"InfoPro: loss={loss!r} is not known; choose {known}")
        if loss == "contrastive" and self.problem.kind == "regression":
            raise UsageError("InfoPro: a regression has no classes to contrast; take loss='supervised'")
        if min(*reconstruction, *discrimination) < 0 or temperature <= 0:
            raise UsageError(
                f"InfoPro: reconstruction={reconstruction} and discrimination={discrimination} must not be below 0, "
                f"temperature={temperature} above 0"
            )
        self.reconstruction, self.discrimination = reconstruction, discrimination
        self.loss, self.temperature = loss, temperature
        ends = [len(net) * k // modules for k in range(modules + 1)]
        self.cut([range(start, end) for start, end in pairwise(ends)])
        if modules == len(net) > 1:  # no derivative goes through two blocks
            self.claims = replace(self.claims, later_blocks="none", differentiable=False, memory="flat")
        if modules == 1:
            self.claims = replace(self.claims, forward_lock=True, update_lock=True, training_only=False)

    def head(self, shape: tuple[int, ...]) -> nn.Module:
        outputs = HIDDEN if self.loss == "contrastive" else self.problem.outputs
        hidden = Readout(shape, HIDDEN, self.generator)
        layers = nn.Sequential(hidden, nn.ReLU(), nets.linear(HIDDEN, outputs, "lecun", self.generator))
        image = [int(n or 0) for n in self.problem.input_shape]
        return nn.ModuleDict({"decoder": Decoder(shape, image, self.generator), "readout": layers})

    def weights(self, last: int) -> tuple[float, float]:
        """a_k and b_k of the module that ends with the block `last`."""
        ends = [module[-1] for module in self.ranges[:-1]]
        depth = ends.index(last) / max(1, len(ends) - 1)
        a, b = ((1 - depth) * first + depth * final for first, final in (self.reconstruction, self.discrimination))
        return a, b

    def local_loss(self, last: int, h: Tensor, x: Tensor, y: Tensor) -> Float[Tensor, ""]:
        a, b = self.weights(last)
        head = self.heads[str(last)]
        rebuilt, z = (head.get_submodule(name)(h) for name in ("decoder", "readout"))
        if self.loss == "contrastive":
            told = contrast(z, y, self.temperature)
        else:
            told = losses(z, y, self.problem.kind).mean()
        return a * mse_loss(rebuilt, x) + b * told


def contrast(z: Float[Tensor, "batch units"], y: Int[Tensor, " batch"], temperature: float) -> Float[Tensor, ""]:
    """The supervised contrastive loss (Khosla et al. 2020); a sample that is alone in its class counts 0."""
    z = normalize(z)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    likeness = (z @ z.t() / temperature).masked_fill(itself, torch.finfo(z.dtype).min)
    others = (y == y.unsqueeze(1)) & ~itself
    told = likeness.log_softmax(1).masked_fill(~others, 0.0).sum(1)
    return -(told / others.sum(1).clamp(min=1)).mean()
