"""Predictive coding with fixed predictions: errors relax, predictions and derivatives stay at the feed-forward pass.

Millidge, Tschantz & Buckley 2022, "Predictive coding approximates backprop along arbitrary computation graphs" (arXiv
2006.04182). With mu_l and J_l frozen at the feed-forward pass, and e_L = -dC/dmu_L,

    e_l <- e_l + rate (J_{l+1}^T e_{l+1} - e_l)         `sweeps` times, all blocks at once, from e_l = 0
    learn    -(d mu_l / d theta_l)^T e_l                mean over the batch

The fixed point e_l = J_{l+1}^T e_{l+1} is backpropagation, to the last digit; with a rate of 1 it is there after L - 1
sweeps. It is the end of the scale: what a public "predictive coding" computes where it freezes its predictions.

Departures from the paper:
1. The default finds the fixed point by one sweep from the output down (`sweeps=None`), at the cost of a backward pass.
2. Cross-entropy at the output by default (`output="squared"` is the paper's).
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import Energy, feed_forward
from altprop.rules.energy.coding import SMALL_EPS_ADAM, check_relaxation, cost_of, learn_from, refusal, target_of


class FixedPrediction(Rule):
    """Predictive coding with the fixed-prediction assumption: backpropagation as a relaxation of errors.

    Arguments:
        sweeps: of all errors at once; left out, one sweep from the output down, which is exact.
        rate: of the errors, at most 1.
        output: the cost, "squared" or "cross-entropy"; left out, squared for regression only.

    Metrics: "loss", the output's cost.
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
        sweeps: int | None = None,
        rate: float = 1.0,
        output: str | None = None,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        check_relaxation(self, 1 if sweeps is None else sweeps, rate)
        self.sweeps, self.rate, self.output = sweeps, rate, cost_of(self, output)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        free = feed_forward(list(self.net), x, Energy(target_of(x, y, self.problem), self.output))
        predictions, errors = free.predictions, list(free.errors)
        hidden = range(len(errors) - 2, -1, -1)
        for _ in range(1 if self.sweeps is None else self.sweeps):
            seen = errors if self.sweeps is None else list(errors)  # one by one, or all at once
            for i in hidden:
                above, here = seen[i + 1], seen[i]
                if above is not None:
                    move = predictions[i + 1].pull_back(above, here)
                    errors[i] = self.rate * move if here is None else here + self.rate * move
        learn_from(self, predictions, errors)
        return {"loss": free.cost.mean()}
