"""Predictive coding: states relax towards low prediction error, then every block learns from its own error.

Whittington & Bogacz 2017, "An approximation of the error backpropagation algorithm in a predictive coding network
with local Hebbian synaptic plasticity" (doi 10.1162/NECO_a_00949). Block l predicts the state above it,
mu_l = F_l(x_{l-1}); the input x_0 is clamped, and so is the output x_L, to the label. One sample's energy and errors:

    E = 1/2 sum_l ||e_l||^2,    e_l = x_l - mu_l  (cross-entropy at the output: e_L = onehot(y) - softmax(mu_L))

    start    x_l = mu_l                                          (feed-forward: only e_L is not zero)
    relax    x_l <- x_l + rate (J_{l+1}^T e_{l+1} - e_l)         J_{l+1} = d mu_{l+1} / d x_l, `sweeps` times
    learn    dE/dtheta_l = -(d mu_l / d theta_l)^T e_l           mean over the batch

The error climbs down one block a sweep, so blocks below it are skipped until it arrives (their error is exactly zero),
and a prediction serves its sweep, the next one and the weight gradient. The input is clamped: mu_1 is computed once.

Departures from the paper:
1. A block predicts with its activation, F_l(x) = f(W x + b), so that any differentiable block fits; `states="before"`
   is the paper's W f(x) + b.
2. Feed-forward start instead of an equilibrium without the label (or `start="zero"`); a fixed number of sweeps instead
   of convergence.
3. A sample whose energy would rise goes back to where it was and halves its own rate for the rest of the step
   (`monitor=False` leaves this out); momentum, which that sample loses.
4. `order="gauss-seidel"`: from the output down, each state sees the new state above it, at the same cost;
   "red-black": every second state, then the others.
5. Cross-entropy at the output by default (`output="squared"` is the paper's). `beta` weighs the output's energy, and
   gradients are divided by it: the nearer it is to 0, the nearer they are to backpropagation's.
6. All precisions are 1, or one a block is learnt, p <- p exp(rate (1 - p mean (x - mu)^2)), from 1/100 to 100.
7. Adam instead of gradient descent, with a small eps, as early blocks have tiny gradients.
"""

import math
import warnings

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import ORDERS, Chain, Energy, feed_forward, from_zero, mean_rate, settle
from altprop.rules.energy.coding import (
    SMALL_EPS_ADAM,
    check_choice,
    check_relaxation,
    cost_of,
    learn_from,
    refusal,
    target_of,
)
from altprop.rules.energy.segments import STATES, segments
from altprop.rules.energy.stability import stable_rate

PRECISION_LIMIT = math.log(100.0)


class PredictiveCoding(Rule):
    """Predictive coding in its state form.

    Arguments:
        sweeps: relaxation sweeps per batch; left out, 8, or as many as the error needs to reach the first block.
        rate: state rate at the start of each step; halved, for one sample, whenever its energy would rise.
        order: "jacobi" moves all states at once; "gauss-seidel" from the output down; "red-black" every second one.
        momentum: of the states ("heavy ball").
        states: whether they stand "after" each block's activation or "before" it.
        output: energy of the output, "squared" or "cross-entropy"; left out, squared for regression only.
        start: hidden states "feed-forward" or at "zero".
        beta: weight of the output's energy.
        precision_rate: rate at which precisions are learnt; 0 leaves them at 1.
        monitor: whether samples whose energy would rise go back; without, a rate above the stable bound is refused
            at the first step that shows it.

    Any differentiable block whose prediction for a sample depends on that sample alone; blocks without parameters too.
    Metrics: "loss", the output's energy before relaxation; "energy", the whole after it; "rate"; "residual", the slope
    of the energy over the size of the errors, before the last sweep (means over the batch).
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
    precisions: Float[Tensor, " hidden"]

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        sweeps: int | None = None,
        rate: float = 0.1,
        order: str = "jacobi",
        momentum: float = 0.0,
        states: str = "after",
        output: str | None = None,
        start: str = "feed-forward",
        beta: float = 1.0,
        precision_rate: float = 0.0,
        monitor: bool = True,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        sweeps = sweeps if sweeps is not None else max(8, len(net) - 1)
        check_relaxation(self, sweeps, rate, momentum)
        check_choice(self, "order", order, ORDERS)
        check_choice(self, "states", states, STATES)
        check_choice(self, "start", start, ("feed-forward", "zero"))
        if not 0.0 < beta < float("inf") or precision_rate < 0.0:
            raise UsageError(
                f"PredictiveCoding(beta={beta}, precision_rate={precision_rate}): beta must be positive, and the rate "
                "of precisions not negative"
            )
        if not monitor and rate >= 2.0:
            raise UsageError(
                f"PredictiveCoding(rate={rate}, monitor=False): relaxation diverges on any net at a rate of 2 or "
                "more; lower it, or leave monitor on"
            )
        self.sweeps, self.rate, self.order, self.momentum = sweeps, rate, order, momentum
        self.states, self.output, self.start = states, cost_of(self, output), start
        self.beta, self.precision_rate, self.monitor = beta, precision_rate, monitor
        if precision_rate:
            self.register_buffer("precisions", torch.ones(len(net) - 1, dtype=next(net.parameters()).dtype))
        missed = len(net) - 1 - reach(order, sweeps, len(net))
        if start == "feed-forward" and missed > 0:
            warnings.warn(
                f"PredictiveCoding(sweeps={sweeps}, order={order!r}): the error does not reach the first {missed} of "
                f"{len(net)} blocks, whose gradient is exactly zero; take more sweeps, or order='gauss-seidel'",
                stacklevel=2,
            )

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        precisions = self.precisions.tolist() if self.precision_rate else None
        energy = Energy(target_of(x, y, self.problem), self.output, self.beta, precisions)
        blocks = segments(self.net, self.states)
        begin = feed_forward(blocks, x, energy) if self.start == "feed-forward" else from_zero(blocks, x, energy)
        now, rate, unsettled = settle(begin, energy, self.sweeps, self.rate, self.order, self.momentum, self.monitor)
        if not self.monitor and not bool(now.energy.mean() <= begin.energy.mean()):
            raise UsageError(
                f"PredictiveCoding(rate={self.rate}, monitor=False): the energy rose; relaxation is stable below a "
                f"rate of {stable_rate(begin, energy):.2g} here (2 / the energy's largest curvature); lower it, or "
                "leave monitor on"
            )
        if precisions is not None:
            self._learn_precisions(now)
        learn_from(self, now.predictions, now.errors, 1 / self.beta)
        loss = begin.cost.mean() / self.beta
        return {"loss": loss, "energy": now.energy.mean(), "rate": mean_rate(rate, now.energy), "residual": unsettled}

    def _learn_precisions(self, now: Chain) -> None:
        """A step up the slope of log p - p mean (x - mu)^2."""
        p = self.precisions
        hidden = zip(now.errors, p.tolist(), strict=False)  # the last error is the output's, which has none
        change = p.new_tensor([0.0 if e is None else 1 - float(e.square().mean()) / q for e, q in hidden])
        log_p = (p.log() + self.precision_rate * change).clamp(-PRECISION_LIMIT, PRECISION_LIMIT)
        self.assign(self.precisions, log_p.exp())


def reach(order: str, sweeps: int, blocks: int) -> int:
    """How many blocks below the output block get an error from that many sweeps."""
    return blocks if order == "gauss-seidel" else sweeps if order == "jacobi" else 2 * sweeps
