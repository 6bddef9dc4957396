"""Z-IL: predictive coding timed so that it is backpropagation, zero-divergence inference learning.

Song, Lukasiewicz, Xu & Bogacz 2020, "Can the brain do backpropagation? - exact implementation of backpropagation in
predictive coding networks" (NeurIPS 33). The states of predictive coding relax at a rate of 1 from the feed-forward
pass, and block L - t learns at sweep t, when the error has just arrived there and nothing below has moved:

    sweep t = 0 ... L-1:    x_l <- x_l + J_{l+1}^T e_{l+1} - e_l,  l = L-t-1
                            theta_{L-t} learns -(d mu_{L-t} / d theta_{L-t})^T e_{L-t}

so that e_{L-t} is minus the derivative of the output's cost by mu_{L-t}, exactly.

Departures from the paper:
1. A state that has done its part moves no more: nothing that it does afterwards reaches any update.
2. Cross-entropy at the output by default (`output="squared"` is the paper's).
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import Energy, feed_forward
from altprop.rules.energy.coding import SMALL_EPS_ADAM, cost_of, refusal, target_of


class ZIL(Rule):
    """Zero-divergence inference learning: predictive coding whose updates are backpropagation's.

    Arguments:
        output: the cost, "squared" or "cross-entropy"; left out, squared for regression only.

    Metrics: "loss", the output's cost.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="backward",
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
        output: str | None = None,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        self.output = cost_of(self, output)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        free = feed_forward(list(self.net), x, Energy(target_of(x, y, self.problem), self.output))
        error = free.errors[-1]
        assert error is not None
        for i in range(len(self.net) - 1, -1, -1):
            prediction, arrived = free.predictions[i], error
            if i > 0:
                state = prediction.x.detach()
                error = state + prediction.pull_back(arrived) - free.predictions[i - 1].mu
            if f"blocks.{i}" in self.optimizers:
                prediction.fill_gradients(arrived)
                self.update(f"blocks.{i}")
        return {"loss": free.cost.mean()}
