"""Adaptive relaxation: predictive coding whose errors descend through weights of their own, which adapt meanwhile.

Predictive coding sends errors down through the transposed forward weights. Here they go through a matrix V_l a block,
which starts as a copy of W_l and learns in every sweep from the same two activities as W_l does at the end (Kolen &
Pollack 1994, "Backpropagation without weight transport", doi 10.1109/ICNN.1994.374486):

    e_l = x_l - mu_l,  mu_l = f(W_l x_{l-1} + b_l),    d_l = f'(z_l) e_l
    relax    x_l <- x_l + rate (V_{l+1}^T d_{l+1} - e_l)
    adapt    V_l learns -d_l x_{l-1}^T                      after every sweep
    learn    W_l learns -d_l x_{l-1}^T, b_l learns -d_l     after the last one

Whatever both matrices learn alike, their difference keeps; weight decay on both shrinks it, and V_l comes to W_l.

The idea is that of a public repository (LumenPallidium/backprop-alts), whose feedback weights are views of the forward
ones, so that relaxing changes the forward weights themselves. Here they are copies.

Departures from that:
1. Feed-forward start, the states' own activation in the update, biases, and a rate that halves, for one sample, when
   its energy rises (it is not taken back: with feedback of its own a step need not lower the energy).
2. `feedback="random"`: V starts at random values of the same size, to see whether it finds its way.
3. Cross-entropy at the output by default.
"""

from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule, Schedule
from altprop.rules.energy.chain import Chain, Energy, at, feed_forward, has_fallen, stepped
from altprop.rules.energy.coding import (
    SMALL_EPS_ADAM,
    check_choice,
    check_relaxation,
    cost_of,
    learn_from,
    refusal,
    target_of,
)
from altprop.rules.energy.prediction import ByHand, form_of, predict

FEEDBACK_SGD = partial(torch.optim.SGD, lr=0.01, fused=True)


class AdaptiveRelaxation(Rule):
    """Predictive coding with feedback weights of its own, which learn during relaxation.

    Arguments:
        sweeps: per batch; each adapts the feedback weights.
        rate: state rate at the start of each step; halved, for one sample, whenever its energy rises.
        feedback: where V starts, at a "copy" of W or at "random" values of the same size.
        output: cost of the output, "squared" or "cross-entropy"; left out, squared for regression only.

    The feedback matrices, one for each block but the first, are the parts "feedback.1", ..., with optimizers of their
    own. Blocks are linear, with or without an activation. Metrics: "loss", before relaxation; "energy"; "rate".
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=True,
        memory="grows",
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
        sweeps: int = 8,
        rate: float = 0.1,
        feedback: str = "copy",
        output: str | None = None,
        optimizer: OptimizerSpec | None = None,
        schedule: Schedule | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        optimizer = optimizer or {"blocks": SMALL_EPS_ADAM, "feedback": FEEDBACK_SGD}
        super().__init__(net, problem, optimizer=optimizer, schedule=schedule, generator=generator)
        check_relaxation(self, sweeps, rate)
        check_choice(self, "feedback", feedback, ("copy", "random"))
        self.sweeps, self.rate, self.output = sweeps, rate, cost_of(self, output)
        self.feedback = nn.ModuleDict()
        for i, block in enumerate(list(net)[1:], 1):
            form = form_of(block)
            assert form is not None
            v = form.weight.detach().clone()
            if feedback == "random":
                v = (float(v.std()) * torch.randn(v.shape, generator=self.generator)).to(v)
            self.feedback[str(i)] = nn.ParameterList([nn.Parameter(v)])
            self.add_part(f"feedback.{i}", self.feedback[str(i)])

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        for i, block in enumerate(net):
            if form_of(block) is None:
                return (
                    f"block {i} is not a linear layer with relu, leaky-relu, tanh, sigmoid, gelu or no activation, and "
                    "only those have feedback weights here; choose PredictiveCoding"
                )
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        energy = Energy(target_of(x, y, self.problem), self.output)
        now = feed_forward(list(self.net), x, energy)
        loss, rate = now.cost.mean(), torch.full_like(now.energy, self.rate)
        for sweep in range(1, self.sweeps + 1):
            before, now = now, self._sweep(now, energy, rate, still=len(self.net) - 1 - sweep)
            rate = torch.where(has_fallen(before, now), rate, rate / 2)
            self._adapt(now)
        learn_from(self, now.predictions, now.errors)
        return {"loss": loss, "energy": now.energy.mean(), "rate": rate.mean()}

    def _sweep(self, now: Chain, energy: Energy, rate: Float[Tensor, " batch"], still: int) -> Chain:
        """All states moved at once, by the errors that come down through the feedback weights."""
        moved = []
        for i, prediction in enumerate(now.predictions[1:], 1):
            above = now.errors[i]
            if above is None:  # the error has not come down so far
                moved.append(prediction)
                continue
            assert isinstance(prediction, ByHand)
            slope = prediction.pull_back(above, now.errors[i - 1], self._matrix(i))
            moved.append(predict(prediction.block, stepped(prediction.x, slope, rate)))
        return at(now.predictions[0], moved, energy, still)

    def _adapt(self, now: Chain) -> None:
        """One update of every feedback matrix from the products that its forward matrix would learn from."""
        for i, prediction in enumerate(now.predictions[1:], 1):
            error = now.errors[i]
            assert isinstance(prediction, ByHand)
            if error is not None and f"feedback.{i}" in self.optimizers:
                self._matrix(i).grad = prediction.weight_gradient(error)
                self.update(f"feedback.{i}")

    def _matrix(self, i: int) -> nn.Parameter:
        matrix = self.feedback[str(i)][0]  # type: ignore[index]
        assert isinstance(matrix, nn.Parameter)
        return matrix
