"""Krotov and Hopfield's rule: the winner learns a patch, and the unit of rank k unlearns it.

Krotov & Hopfield 2019 (PNAS, arXiv 1806.10181; mini-batches as in the authors' notebook). For a patch x, with sums q =
sum_d sign(w_d) |w_d|^(p-1) x_d, so that p = 2 gives q = W x, and means over the patches of a batch:

    g = 1 for the unit with the largest q, -delta for the one of rank k, 0 for all others
    dW_i = < g_i (x - q_i w_i) >,      dW <- dW / max |dW|

Winners come to sum |w|^p = 1. The other sign is unstable: the weights of a unit that only unlearns grow without bound.

Departures from the paper:
1. losers="sphere" (the default) takes - delta (x - q w / sum |w|^p) instead, which leaves sum |w|^p as it is, to first
   order; "free" is the authors'.
2. Blocks answer with their own activation, and readouts are those of all Hebbian rules (the authors': max(0, u)^4.5,
   and a tanh whose error is raised to a power).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.competition import Competitive, winners
from altprop.rules.hebbian.patches import Layer, means, product, respond, scaled


class KrotovHopfield(Competitive):
    """The rule of Krotov & Hopfield 2019 for linear and convolutional layers, with a readout.

    Arguments:
        norm: p, at least 1. rank: k, at least 2. delta: how much the unit of rank k unlearns; 0 for not at all.
        losers: "sphere" or "free", see the module.
        The others are those of `Hebbian`; the parts are "blocks.0", "blocks.1", ... and "head".
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
        norm: float = 2.0,
        rank: int = 2,
        delta: float = 0.4,
        losers: str = "sphere",
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        if norm < 1 or rank < 2 or delta < 0 or losers not in ("sphere", "free"):
            raise UsageError(
                f"KrotovHopfield(norm={norm}, rank={rank}, delta={delta}, losers={losers!r}): give a norm of at least "
                '1, a rank of at least 2, a delta not below 0, and losers="sphere" or "free"'
            )
        super().__init__(net, problem, settle=settle, **options)
        fewest = min(len(self.wins(i)) for i in self.layers)
        if rank > fewest:
            raise UsageError(f"KrotovHopfield(rank={rank}): a block has {fewest} units; take a lower rank")
        self.norm, self.rank, self.delta, self.losers = norm, rank, delta, losers
        self.settles = norm if losers == "sphere" else None  # with "free" losers some grow

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        w = layer.weight
        q = u if self.norm == 2.0 else respond(layer, x, w.sign() * w.abs().pow(self.norm - 1.0))
        ranked = winners(q, self.rank)
        best, other = ranked[:, :1], ranked[:, -1:]
        self.count(i, best)
        won = torch.zeros_like(q).scatter_(1, best, 1.0)
        lost = torch.zeros_like(q).scatter_(1, other, -self.delta)
        away = means(lost * q)
        if self.losers == "sphere":
            away = away / w.flatten(1).abs().pow(self.norm).sum(1).clamp_min(torch.finfo(w.dtype).eps)
        change = product(layer, won + lost, x).sub_(scaled(means(won * q) + away, w))
        return change.div_(change.abs().max().clamp_min(torch.finfo(w.dtype).tiny))
