"""Hebbian PCA: each unit learns what the others have not yet explained of its input, by means of products alone.

Oja 1982 (doi 10.1007/BF00275687), Oja 1989 (subspace, doi 10.1142/S0129065789000475), Sanger 1989 (generalised Hebbian
algorithm, doi 10.1016/0893-6080(89)90044-0), Oja, Ogawa & Wangviwattana 1992 (weighted subspace). For convolutions, on
patches: HPCA, Lagani et al. 2021 (arXiv 2103.09002) and FastHebb (arXiv 2207.03172). With u = W x, y = u (or f(u)),
and means over all patches of a batch:

    dW = <y x^T> - T(<y y^T>) W

    "oja"       T(G) = diag(G)       every unit comes to the first component
    "subspace"  T(G) = G             rows become orthonormal and span the first K components, in no order
    "sanger"    T(G) = tril(G)       row i becomes the i-th component
    "weighted"  T(G) = diag(theta) G, theta rising to 1: row i becomes the i-th component, with norm 1 / sqrt(theta_i)

Departures from the papers:
1. Batches: means in the place of one sample at a time.
2. `relative` divides the change by <||x||^2> of the batch, so that a rate of up to 0.5 is stable whatever the data.
3. The input of each layer is centred by a running mean; a layer's output goes through the net's activation, and the
   next layer learns from that.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.patches import Layer, gram, means, mixed, power, product, scaled
from altprop.rules.hebbian.prepared import Prepared

UPDATES = ("oja", "subspace", "sanger", "weighted")
RESPONSES = {"linear": lambda u: u, "relu": torch.relu, "tanh": torch.tanh}


class HebbianPCA(Prepared):
    """Oja's, Sanger's and the subspace rules for linear and convolutional blocks, with a readout.

    For nets of linear and convolutional blocks without an output block.

    Arguments:
        update: "oja", "subspace", "sanger" or "weighted" (see the module).
        response: y is "linear", or "relu" or "tanh" of u (nonlinear Hebbian PCA).
        relative: the change is divided by the mean squared length of the inputs.
        lowest: theta of the first unit ("weighted").
        inputs, memory, eps: as in `Prepared`; readout, settle, penalty: as in `Hebbian`.
        The others are those of `Rule`; the parts are "blocks.1", "blocks.3", ... (of the rule's net) and "head".
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
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        update: str = "sanger",
        response: str = "linear",
        relative: bool = True,
        lowest: float = 0.5,
        **options: Any,
    ) -> None:
        if update not in UPDATES or response not in RESPONSES or not 0 < lowest < 1:
            raise UsageError(
                f"HebbianPCA(update={update!r}, response={response!r}, lowest={lowest}): choose an update among "
                f"{', '.join(UPDATES)}, a response among {', '.join(RESPONSES)}, and a lowest theta between 0 and 1"
            )
        super().__init__(net, problem, **options)
        self.kind, self.response, self.relative, self.lowest = update, response, relative, lowest

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        y = RESPONSES[self.response](u)
        explained = (
            scaled(means(y.square()), layer.weight)
            if self.kind == "oja"
            else mixed(self._shares(gram(y, y)), layer.weight)
        )
        change = product(layer, y, x).sub_(explained)
        return change.div_(power(layer, x).clamp_min_(torch.finfo(x.dtype).tiny)) if self.relative else change

    def _shares(self, g: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
        """What each unit (a row) leaves out of each other's part of the input."""
        if self.kind == "sanger":
            return g.tril_()
        if self.kind == "weighted":
            theta = torch.linspace(self.lowest, 1.0, len(g), dtype=g.dtype, device=g.device)
            return g.mul_(theta.unsqueeze(1))
        return g
