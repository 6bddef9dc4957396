"""PCA by lateral weights: units decorrelate each other, by weights that learn from their own two ends alone.

APEX: Kung & Diamantaras 1990 (doi 10.1109/ICASSP.1990.115975), after Földiák 1989. Similarity matching: Pehlevan, Hu &
Chklovskii 2015 (arXiv 1503.00669); Pehlevan, Sengupta & Chklovskii 2018 (arXiv 1703.07914). With u = W x and lateral
weights M, units rest at y with M y = u. Means are over all patches of a batch:

    "apex"                 M = I + A, A strictly lower:   dW = <y x^T> - diag<y^2> W,  dA = <y y^T> - diag<y^2> A
                           rows of W become the components in order, and A goes to 0
    "similarity-matching"  M symmetric:                   dW = 2 (<y x^T> - W),        dM = (<y y^T> - M) / tau
                           F = M^-1 W becomes an orthonormal basis of the first K components' space, in no order

M belongs to the block (it stands in its norm's place as `nets.Lateral`), for a prediction settles as well.

Departures from the papers:
1. Batches: means in the place of one sample at a time. y is solved for, and not run to rest.
2. `relative` divides correlations by <||x||^2> of the batch (the authors of similarity matching scale their data so).
3. `floor` is added to the diagonal of <y y^T> in dM: M stays invertible where there are more units than components.
4. The input of each layer is centred by a running mean; y goes through the net's activation, and the next layer learns
   from that.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.patches import Layer, gram, power, product, scaled
from altprop.rules.hebbian.prepared import Prepared
from altprop.rules.watch import check_units, check_weights

UPDATES = ("apex", "similarity-matching")


class LateralPCA(Prepared):
    """APEX and similarity matching for linear and convolutional blocks, with a readout.

    For nets of linear and convolutional blocks without an output block.

    Arguments:
        update: "apex" or "similarity-matching" (see the module).
        relative: correlations are divided by the mean squared length of the inputs.
        tau: how much slower M is than W ("similarity-matching").
        floor: of the eigenvalues of M ("similarity-matching").
        inputs, memory, eps: as in `Prepared`; readout, settle, penalty: as in `Hebbian`.
        The others are those of `Rule`; a block's part holds W and M.
    """

    kind: str
    tau: float
    floor: float
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
        update: str = "similarity-matching",
        relative: bool = True,
        tau: float = 0.5,
        floor: float = 1e-5,
        **options: Any,
    ) -> None:
        if update not in UPDATES or tau <= 0 or floor < 0:
            raise UsageError(
                f"LateralPCA(update={update!r}, tau={tau}, floor={floor}): choose one of {', '.join(UPDATES)}, a "
                "tau above 0, and a floor of at least 0"
            )
        self.__dict__.update(kind=update, relative=relative, tau=tau, floor=floor)  # `prepared` asks for them
        super().__init__(net, problem, **options)

    def prepared(self, net: nn.Sequential, shape: tuple[int, ...], *how: Any) -> nn.Sequential:
        return super().prepared(nn.Sequential(*(self._settling(block) for block in net)), shape, *how)

    def _settling(self, block: nn.Module) -> nn.Module:
        """The block with lateral weights before its norm; one that does not learn stays as it is."""
        layer = nets.affine(block)
        if not isinstance(layer, Layer) or not layer.weight.requires_grad:
            return block
        lateral = nets.Lateral(len(layer.weight), ordered=self.kind == "apex").to(layer.weight)
        if not isinstance(block, nets.Block):
            return nets.Block(layer, lateral)
        norm = lateral if block.norm is None else nn.Sequential(lateral, block.norm)
        return nets.Block(layer, norm, block.activation, block.pool)

    def _pass(self, i: int, block: nn.Module, x: Float[Tensor, "batch ..."], rate: float) -> Float[Tensor, "batch ..."]:
        layer = nets.affine(block)
        if rate == 0.0 or not isinstance(layer, Layer) or not self.learns(i, layer):
            return super()._pass(i, block, x, 0.0)
        assert isinstance(block, nets.Block)
        lateral, *norm = block.norm if isinstance(block.norm, nn.Sequential) else (block.norm,)
        assert isinstance(lateral, nets.Lateral)
        check_weights(self, i, layer)
        y = lateral.forward(layer(x))  # once, for the prediction and for what is learnt
        h = nets.onward((*norm, block.activation, block.pool), y)
        check_units(self, i, x, h)
        self._settled(i, layer, lateral, x, y, rate)
        return h

    def _settled(
        self,
        i: int,
        layer: Layer,
        lateral: nets.Lateral,
        x: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch units ..."],
        rate: float,
    ) -> None:
        """Block i learns from its input x and from y, where its units came to rest."""
        self.inspect(i, layer, x, rate)
        correlated, own = product(layer, y, x), gram(y, y)
        if self.relative:
            scale = power(layer, x).clamp_min_(torch.finfo(x.dtype).tiny)
            correlated, own = correlated.div_(scale), own.div_(scale)
        w, m = layer.weight, lateral.weight
        if self.kind == "apex":
            squares = own.diagonal().clone()
            dw = correlated.sub_(scaled(squares, w))
            dm = own.sub_(scaled(squares, m)).tril_(-1)
        else:
            own.diagonal().add_(self.floor)
            dw, dm = correlated.sub_(w).mul_(2.0), own.sub_(m).div_(self.tau)
        w.grad, m.grad = dw.mul_(-rate), dm.mul_(-rate)
        self.update(f"blocks.{i}")
