"""Contrastive Hebbian learning: what units do together when the label is shown, minus what they do without it.

Movellan 1991 (Connectionist Models, doi 10.1016/B978-1-4832-1448-1.50007-X); in layers with weak ways down Xie &
Seung 2003 (doi 10.1162/089976603762552988). In a symmetric net (see `hopfield`) with the input clamped:

    minus phase  the net settles freely, s^-
    plus phase   the outputs are clamped to the label, s_L = y, and the net settles again from s^-: s^+
    dW_l ~ g^(l-L) (s_l^+ s_{l-1}^+T - s_l^- s_{l-1}^-T),   db_l ~ g^(l-L) (s_l^+ - s_l^-)

This descends on J = E(s^+) - E(s^-) >= 0, and for feedback g -> 0 it is backpropagation of the squared error (Xie &
Seung 2003). It is equilibrium propagation with an infinite nudge (Scellier & Bengio 2017).

Departures from the papers:
1. States are found by the fixed-point equations, even and odd layers in turn, from a feed-forward start.
2. Output units may be linear, and layers convolutional. Adam by default.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from altprop.rule import Claims, Metrics
from altprop.rules.energy.hopfield import Hopfield, clamped, squared_error


class ContrastiveHebbian(Hopfield):
    """Contrastive Hebbian learning on perceptrons and convolutional nets with bounded activations.

    Arguments: those of `Hopfield` and `Rule`.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=True,
        memory="grows",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        system, target = self.system(x), self.target(y, x)
        minus = system.relax(system.feed_forward(), self.solver)
        plus = system.relax([*minus.states[:-1], target], self.solver, clamped)
        self.contrast(x, [(1.0, plus.states), (-1.0, minus.states)])
        return {"loss": squared_error(minus.states[-1], target), **self.settling(minus, plus)}
