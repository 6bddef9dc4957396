"""Node perturbation: add noise to the units, see what it does to each sample's loss, and correlate the two.

Widrow & Lehr 1990 (doi 10.1109/5.58323, Madaline rule III); Werfel, Xie & Seung 2005 (doi 10.1162/089976605774320539);
Dalm, van Gerven & Ahmad 2023 (arXiv 2310.00965). With blocks h_l = F_l(a_l), a_l = W_l h_{l-1} + b_l, and for each
sample, K = `directions` times:

    u_l = ±1 a unit,    L+ = the loss where sigma u_l is added to every a_l,    L- = the loss without
    d = (L+ - L-) / sigma
    dW_l = mean over samples and directions of d u_l h_{l-1}^T,    db_l = mean of d u_l

`antithetic` takes for L- the loss where sigma u_l is subtracted, and 2 sigma for sigma. As sigma falls, d goes to the
slope of the loss along u, and the mean of dW_l over the signs to the gradient: like sigma, or its square if antithetic.

No derivative is taken. All that is known of the net is each sample's loss, and what its layers are given.

Departures from the papers:
1. Noise is of random signs and not normal: the same mean, less variance, a cheaper draw.
2. All blocks are perturbed at once, the output block too. h_{l-1} is what the layer is given without noise; if
   antithetic, the mean of all that it is given.
3. Of Dalm et al. neither the decorrelation of the inputs nor the measured, normalised change of the activities.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import losses, scores_missing
from altprop.rules.perturbation.affine import correlate, layer_of, layers_missing, tapped
from altprop.rules.perturbation.probes import Probes
from altprop.rules.perturbation.signs import signs


class NodePerturbation(Rule):
    """Node perturbation (Widrow & Lehr 1990, Werfel et al. 2005), with finite differences of the loss.

    Arguments:
        sigma: the size of the perturbations.
        directions: K, how many each sample tries in a step; all go through the net side by side, as one larger batch.
        antithetic: whether each direction is tried both ways.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="grows",
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
        sigma: float = 1e-2,
        directions: int = 1,
        antithetic: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self.probes = Probes(sigma, directions, antithetic)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return scores_missing(net, problem) or layers_missing(net)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        waiting: dict[int, tuple[Tensor, Tensor]] = {}  # h_{l-1} and u_l
        h = x  # once; behind the first layer that learns, for each of all that are tried
        for i, block in enumerate(self.net):
            if f"blocks.{i}" in self.optimizers:
                given = self.probes.middle(h.unflatten(0, (-1, len(x))))
                with tapped(layer_of(block), partial(self._disturbed, i, given, waiting)):
                    h = block(h)
            else:
                h = block(h)
        found = losses(h, each(y, self.probes.tried), self.problem.kind).view(self.probes.tried, len(x))
        d = self.probes.slopes(found) / (self.probes.directions * len(x))
        for i in sorted(waiting):
            h, u = waiting.pop(i)
            correlate(layer_of(self.net[i]), h, torch.einsum("kb,kb...->b...", d, u))
            self.update(f"blocks.{i}")
        return {"loss": self.probes.middle(found).mean()}

    def _disturbed(self, i: int, h: Tensor, waiting: dict[int, tuple[Tensor, Tensor]], a: Tensor) -> Tensor:
        """a_l of all that is tried, with sigma u_l where it belongs."""
        if len(a) == len(h):
            a = each(a, self.probes.tried)
        a = a.unflatten(0, (self.probes.tried, len(h)))
        u = signs((self.probes.directions, *a.shape[1:]), a, self.generator)
        there, back = self.probes.steps(a)
        there.add_(u, alpha=self.probes.sigma)
        if self.probes.antithetic:
            back.sub_(u, alpha=self.probes.sigma)
        waiting[i] = h, u
        return a.flatten(0, 1)


def each(rows: Shaped[Tensor, "batch ..."], times: int) -> Shaped[Tensor, "rows ..."]:
    """The whole batch again and again."""
    return rows.repeat(times, *[1] * (rows.dim() - 1))
