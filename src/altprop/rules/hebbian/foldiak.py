"""Földiák's sparse codes: Hebbian weights, units that come to inhibit those they answer with, thresholds that adapt.

Földiák 1990 (Biol. Cybern. 64, doi 10.1007/BF02331346). Binary units with weights Q, lateral weights W <= 0 (symmetric,
no diagonal) and thresholds t rest where

    dy*/dt = f(Q x + W y* - t) - y* = 0,    f(v) = 1 / (1 + exp(-slope v)),    y = [y* > 1/2]

and learn so that each answers a share p of the patches, two of them together p^2, and each the patches that make it
answer. Means over all patches of a batch:

    dW_ij = -alpha (< y_i y_j > - p^2), where W stays at most 0;   dQ = beta < y (x - Q) >;   dt = gamma (< y > - p)

beta is the rate of the part's optimizer, alpha = lateral beta, gamma = threshold beta. W and t belong to the block
(`nets.Settling` stands in its activation's place), for a prediction settles as well.

Departures from the paper:
1. Batches: means in the place of one pattern at a time. A fixed number of Euler steps in the place of a run to rest.
2. Thresholds that are all 0 begin where a share p of the first batch drives the unit above them; the paper lets them
   find their place in a first phase, in which Q rests and gamma is larger.
3. Layers of any depth, convolutions (units at one place inhibit one another), and a readout.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.nets.settling import fired
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer, as_rows, gram, means, product, scaled
from altprop.rules.watch import check_weights

AT_REST = 0.05
"""The largest |dy*/dt| of a patch at rest: far from what takes a unit over the half."""


class Foldiak(Hebbian):
    """Sparse codes by anti-Hebbian lateral weights (Földiák 1990), for linear and convolutional layers, with a readout.

    Arguments:
        p: the share of patches that a unit comes to answer.
        lateral, threshold: how many times faster than the weights (whose rate is the optimizer's) lateral weights and
            thresholds are.
        slope, sweeps, pace: of the way to rest, see `nets.Settling`.
        The others are those of `Hebbian`; a block's part holds Q, W and t. Metrics have "activity", the share of units
        that answer, and "unsettled", the share of patches that did not come to rest.
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        p: float = 0.125,
        lateral: float = 5.0,
        threshold: float = 1.0,
        slope: float = 10.0,
        sweeps: int = 50,
        pace: float = 0.2,
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        if not 0 < p < 1 or lateral < 0 or threshold < 0:
            raise UsageError(
                f"Foldiak(p={p}, lateral={lateral}, threshold={threshold}): p lies between 0 and 1, and the factors of "
                "the rates are not below 0"
            )
        if problem is not None and self.refuses(net, problem) is None:
            net = nn.Sequential(*(settling(block, slope=slope, sweeps=sweeps, pace=pace) for block in net))
        super().__init__(net, problem, settle=settle, **options)
        if self.head is not None and self.head.kind in ("class-mean", "ridge"):  # which keep statistics
            self.claims = replace(self.claims, training_only=True)
        self.p, self.lateral, self.threshold = p, lateral, threshold
        self._seen: list[Float[Tensor, " 2"]] = []

    def learn(self, x: Float[Tensor, "batch ..."], y: Tensor | None) -> Metrics:
        self._seen = []
        metrics = super().learn(x, y)
        activity, unsettled = torch.stack(self._seen or [x.new_zeros(2)]).mean(0)
        return {**metrics, "activity": activity, "unsettled": unsettled}

    def _pass(self, i: int, block: nn.Module, x: Float[Tensor, "batch ..."], rate: float) -> Float[Tensor, "batch ..."]:
        units = block.activation if isinstance(block, nets.Block) else None
        if not isinstance(units, nets.Settling):
            return super()._pass(i, block, x, 0.0)
        assert isinstance(block, nets.Block) and isinstance(block.affine, Layer)
        check_weights(self, i, block.affine)
        u: Tensor = block.affine(x)
        u = u if block.norm is None else block.norm(u)
        if rate > 0.0 and not bool(units.thresholds.any()):
            self.assign(units.thresholds, exceeded(as_rows(u), self.p))
        rested = units.rest(u)
        y = fired(rested)
        restless = units.residual(u, rested) > AT_REST
        self._seen.append(torch.stack([y.mean(), restless.to(y.dtype).mean()]))
        h: Tensor = y if block.pool is None else block.pool(y)
        if rate > 0.0 and self.learns(i, block.affine):
            self._adapt_block(i, block.affine, units, x, y, rate)
        return h

    def _adapt_block(
        self,
        i: int,
        layer: Layer,
        units: nets.Settling,
        x: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch units ..."],
        rate: float,
    ) -> None:
        share = means(y)
        layer.weight.grad = scaled(share, layer.weight).sub_(product(layer, y, x)).mul_(rate)
        together = gram(y, y).sub_(self.p**2)
        units.weight.grad = together.fill_diagonal_(0.0).mul_(rate * self.lateral)
        units.thresholds.grad = share.sub_(self.p).mul_(-rate * self.threshold)
        self.update(f"blocks.{i}")
        self.assign(units.weight, units.weight.clamp(max=0.0))


def exceeded(u: Float[Tensor, "patches units"], share: float) -> Float[Tensor, " units"]:
    """What about this share of the patches lies above, for each unit."""
    return u.kthvalue(math.ceil((1.0 - share) * len(u)), dim=0).values


def settling(block: nn.Module, **how: Any) -> nn.Module:
    """The block with units that settle in its activation's place; one that does not learn stays as it is."""
    layer = nets.affine(block)
    if not isinstance(layer, Layer) or not layer.weight.requires_grad:
        return block
    units = nets.Settling(len(layer.weight), **how).to(layer.weight)
    norm, pool = (block.norm, block.pool) if isinstance(block, nets.Block) else (None, None)
    return nets.Block(layer, norm, units, pool)
