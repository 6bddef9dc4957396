"""Predictive coding in its error form (ePC): errors relax instead of states, and one sweep reaches all blocks.

Goemaere, Oliviers, Bogacz & Demeester 2025, "Error optimization: overcoming exponential signal decay in deep predictive
coding networks" (arXiv 2505.20137). The errors e_1 ... e_{L-1} are the variables, and the states follow from them:

    s_l = F_l(s_{l-1}) + e_l,  s_0 = x,    E = 1/2 sum_l ||e_l||^2 + C(F_L(s_{L-1}), y)

    start    e_l = 0
    relax    e_l <- e_l - rate (e_l + dC/ds_l)      dC/ds_l through all blocks above: a forward and a backward sweep
    learn    -(d mu_l / d theta_l)^T e_l            local: s_{l-1} is a constant

The same energy as predictive coding's, with the same equilibria and weight gradients; only the path there differs. (The
derivative of E by the weights, through the s, would be backpropagation.)

Departures from the paper:
1. A sample whose energy would rise goes back to where it was and halves its rate; momentum.
2. Cross-entropy at the output by default.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import Chain, Energy, Rate, accept, feed_forward, mean_rate, relative, stepped, velocity
from altprop.rules.energy.coding import (
    SMALL_EPS_ADAM,
    check_choice,
    check_relaxation,
    cost_of,
    learn_from,
    refusal,
    target_of,
)
from altprop.rules.energy.prediction import Prediction, predict
from altprop.rules.energy.segments import STATES, segments


class ErrorPredictiveCoding(Rule):
    """Predictive coding that relaxes its errors.

    Arguments:
        sweeps: forward and backward sweeps per batch.
        rate: of the errors at the start of each step; halved, for one sample, whenever its energy would rise.
        momentum: of the errors.
        states: whether they stand "after" each block's activation or "before" it.
        output: the cost, "squared" or "cross-entropy"; left out, squared for regression only.

    Metrics: "loss", the cost before relaxation; "energy", the whole after it; "rate"; "residual", the slope of the
    energy by the errors over their size, before the last sweep (means).
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
        sweeps: int = 5,
        rate: float = 0.1,
        momentum: float = 0.0,
        states: str = "after",
        output: str | None = None,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        check_relaxation(self, sweeps, rate, momentum)
        check_choice(self, "states", states, STATES)
        self.sweeps, self.rate, self.momentum = sweeps, rate, momentum
        self.states, self.output = states, cost_of(self, output)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        energy = Energy(target_of(x, y, self.problem), self.output)
        now = feed_forward(segments(self.net, self.states), x, energy)
        loss = now.cost.mean()
        rate: Rate = self.rate
        for sweep in range(1, self.sweeps + 1):
            slopes = slopes_of(now)
            if sweep == self.sweeps:
                unsettled = relative(slopes, now)
            now, rate = accept(now, propose(now, energy, rate, slopes, self.momentum), rate)
        learn_from(self, now.predictions, now.errors)
        return {"loss": loss, "energy": now.energy.mean(), "rate": mean_rate(rate, now.energy), "residual": unsettled}


def slopes_of(now: Chain) -> list[Float[Tensor, "batch ..."]]:
    """-dE/de_l of every hidden error, by one sweep from the output down."""
    signal, found = now.errors[-1], []
    assert signal is not None
    for prediction, error in zip(now.predictions[:0:-1], now.errors[-2::-1], strict=True):
        signal = prediction.pull_back(signal)
        found.append(signal if error is None else signal - error)
    return found[::-1]


def propose(now: Chain, energy: Energy, rate: Rate, slopes: Sequence[Tensor], momentum: float) -> Chain:
    """The errors moved along the slopes, and the states that follow from them."""
    predictions: list[Prediction] = [now.predictions[0]]
    errors: list[Tensor | None] = []
    velocities: list[Tensor | None] = [None]
    for i, slope in enumerate(slopes):
        v = velocity(slope, now.velocities[i + 1], momentum)
        before = now.errors[i]
        error = stepped(torch.zeros_like(v) if before is None else before, v, rate)
        errors.append(error)
        velocities.append(v if momentum else None)
        predictions.append(predict(now.predictions[i + 1].block, predictions[i].mu + error))
    output, cost = energy.at_output(predictions[-1].mu)
    return Chain(predictions, [*errors, output], energy.total(errors, cost), cost, velocities)
