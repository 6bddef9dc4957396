"""Nudged predictive coding: the output is pulled a little towards the label, pushed away from it, or both in turn.

Both at once is the centred estimate of equilibrium propagation, on the energy of predictive coding (Scellier, Ernoult,
Kendall & Kumar 2023, arXiv 2312.15103); Pinchetti et al. 2025 (arXiv 2407.01163) benchmark the three forms. From the
free state, which is the feed-forward pass, the states relax on

    E_s = 1/2 sum_{l<L} ||x_l - mu_l||^2 + s beta C(mu_L, y),    s = +1 (positive) or -1 (negative)

    dtheta_l = (s / beta) dE_s/dtheta_l,    centred: the mean of both signs

At equilibrium the distance to backpropagation falls as beta, and as beta^2 for the centred form.

`clamp=True` moves the output itself, as the benchmark does: t = mu_L - s beta dC/dmu_L at the free state, and the last
term of E_s is 1/2 ||t - mu_L||^2. Its limit is not backpropagation: hidden states take up a part of the output's error.

Departures:
1. Both phases of the centred form are relaxed in every step, as one batch of twice the size; the input's layer, which
   is the same for both, is asked once. (The benchmark's centred form draws one of the signs for each batch.)
2. A sample whose energy would rise goes back, and halves its rate. Adam with a small eps.
3. beta is constant; the benchmark raises it with the epochs.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import ORDERS, Chain, Energy, feed_forward, mean_rate, settle, side_by_side
from altprop.rules.energy.coding import (
    SMALL_EPS_ADAM,
    check_choice,
    check_relaxation,
    cost_of,
    learn_from,
    refusal,
    target_of,
)
from altprop.rules.energy.prediction import each
from altprop.rules.energy.segments import STATES, segments

SIGNS = {"positive": (1.0,), "negative": (-1.0,), "centred": (1.0, -1.0)}


class NudgedPredictiveCoding(Rule):
    """Predictive coding with the output moved by beta of the way to the label, or from it.

    Arguments:
        nudge: "positive", "negative" or "centred".
        beta: strength of the nudge.
        clamp: whether the output itself is moved, instead of its cost being added to the energy.
        sweeps, rate, order, momentum: of the relaxation, as in PredictiveCoding.
        states: whether they stand "after" each block's activation or "before" it.
        output: the cost C, "squared" or "cross-entropy"; left out, squared for regression only.

    Metrics: "loss", the cost of the free state; "rate"; "residual", as in PredictiveCoding.
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

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        nudge: str = "centred",
        beta: float = 0.3,
        clamp: bool = False,
        sweeps: int = 8,
        rate: float = 0.1,
        order: str = "gauss-seidel",
        momentum: float = 0.0,
        states: str = "after",
        output: str | None = None,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        check_relaxation(self, sweeps, rate, momentum)
        for name, word, allowed in (("states", states, STATES), ("order", order, ORDERS), ("nudge", nudge, SIGNS)):
            check_choice(self, name, word, allowed)
        if not 0.0 < beta < float("inf"):
            raise UsageError(f"NudgedPredictiveCoding(beta={beta}): beta must be positive")
        self.nudge, self.beta, self.clamp = nudge, beta, clamp
        self.sweeps, self.rate, self.order, self.momentum = sweeps, rate, order, momentum
        self.states, self.output = states, cost_of(self, output)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        target, signs = target_of(x, y, self.problem), SIGNS[self.nudge]
        free = feed_forward(segments(self.net, self.states), x, Energy(target, self.output))
        sign = torch.cat([torch.full_like(free.energy, s) for s in signs])
        energy = self._nudged(free, torch.cat([target] * len(signs)), sign)
        start = side_by_side(free, len(signs), energy)
        now, rate, unsettled = settle(start, energy, self.sweeps, self.rate, self.order, self.momentum)
        errors = [None if e is None else e * each(sign, e) for e in now.errors]
        if errors[0] is not None:  # the input is the same in both phases
            errors[0] = errors[0].unflatten(0, (len(signs), -1)).mean(0)
        learn_from(self, [free.predictions[0], *now.predictions[1:]], errors, 1 / self.beta)
        return {"loss": free.cost.mean(), "rate": mean_rate(rate, now.energy), "residual": unsettled}

    def _nudged(self, free: Chain, target: Shaped[Tensor, "copies outputs"], sign: Float[Tensor, " copies"]) -> Energy:
        """The energy of the phases of these signs."""
        if not self.clamp:
            return Energy(target, self.output, self.beta * sign)
        mu, slope = free.predictions[-1].mu, free.errors[-1]
        assert slope is not None
        copies = len(sign) // len(mu)
        return Energy(torch.cat([mu] * copies) + self.beta * each(sign, mu) * torch.cat([slope] * copies))
