"""Incremental predictive coding: states and weights move together, in every sweep.

Salvatori et al. 2024, "A stable, fast, and fully automatic learning algorithm for predictive coding networks" (arXiv
2212.00720): incremental expectation maximisation of the energy of predictive coding,

    E = 1/2 sum_l ||x_l - mu_l||^2 + C(mu_L, y),    e_l = x_l - mu_l,  e_L = -dC/dmu_L

    every sweep, from one evaluation of E:    x_l     <- x_l + rate v_l,  v_l <- momentum v_l + J_{l+1}^T e_{l+1} - e_l
                                              theta_l <- optimizer step on -(d mu_l / d theta_l)^T e_l

so that a batch gives every block `sweeps` updates, and no one waits for the states to settle.

Departures from the paper:
1. Feed-forward start in every batch (the authors' code too).
2. A sample whose energy would rise, under the weights as they are, does not move in that sweep and halves its rate:
   otherwise a state rate that fresh weights bear makes trained ones diverge. It costs one more prediction a sweep of
   all blocks but the first.
3. Blocks that no error has reached yet do not learn.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import Energy, Rate, accept, at, feed_forward, mean_rate, propose
from altprop.rules.energy.coding import (
    SMALL_EPS_ADAM,
    check_choice,
    check_relaxation,
    cost_of,
    learn_from,
    refusal,
    target_of,
)
from altprop.rules.energy.prediction import predict
from altprop.rules.energy.segments import STATES, segments


class IncrementalPredictiveCoding(Rule):
    """Predictive coding that updates its weights in every sweep.

    Arguments:
        sweeps: per batch, each with an update of every block that the error has reached.
        rate: state rate at the start of each step; halved, for one sample, whenever its energy has risen.
        momentum: of the states.
        states: whether they stand "after" each block's activation or "before" it.
        output: cost of the output, "squared" or "cross-entropy"; left out, squared for regression only.

    Metrics: "loss", the output's cost before relaxation; "energy", the whole in the last sweep; "rate" (means).
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
        sweeps: int = 8,
        rate: float = 0.5,
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
        blocks = segments(self.net, self.states)
        now = feed_forward(blocks, x, energy)
        loss = now.cost.mean()
        rate: Rate = self.rate
        for sweep in range(1, self.sweeps):
            moved, rate = accept(now, propose(now, energy, rate, momentum=self.momentum), rate)
            learn_from(self, now.predictions, now.errors)
            first = predict(blocks[0], x, clamped=True)
            above = [p.again(p.x.detach()) for p in moved.predictions[1:]]
            now = at(first, above, energy, still=len(blocks) - 1 - sweep)
            now.velocities = moved.velocities
        learn_from(self, now.predictions, now.errors)
        return {"loss": loss, "energy": now.energy.mean(), "rate": mean_rate(rate, now.energy)}
