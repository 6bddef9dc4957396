"""Equilibrium propagation: the net settles, its output is nudged towards the label, and weights learn from the change.

Scellier & Bengio 2017 (doi 10.3389/fncom.2017.00024). In a symmetric net with the energy E (see `hopfield`) let s^b be
the states that settle under E + b C, where C is the cost of the output; s^0 are those of the free phase. Then

    dC/dtheta = d/db dE/dtheta(s^b)  at b = 0,      dE/dtheta_l = -<s_l, dF_l(s_{l-1})/dtheta_l>

of which each nudge is an estimate, from states that start at s^0 and settle in one batch:

    positive     [dE(s^b) - dE(s^0)] / b                  error O(b)    (the paper's)
    negative     [dE(s^0) - dE(s^-b)] / b                 error O(b)
    centred      [dE(s^b) - dE(s^-b)] / 2b                error O(b^2)  (Laborieux et al. 2021, arXiv 2006.03824)
    holomorphic  mean over k of dE(s^{b w^k}) w^-k / b    error O(b^N)  (Laborieux & Zenke 2022, arXiv 2209.00530)
                 with w = exp(2 pi i / N) and complex states

Cost: C = 1/2 ||s_L - y||^2. With `output="cross-entropy"` the output block is a softmax readout outside of the system
(Laborieux et al. 2021): it learns by its own gradient at s^0, and C is its loss as seen by the last states below it.

Departures from the papers:
1. States are found by the fixed-point equations, even and odd layers in turn (Scellier et al. 2023, arXiv 2312.15103),
   from a feed-forward start, until they move no more; not by a fixed number of small steps.
2. A linear output unit takes its nudge exactly: s_L = (u_L + b y) / (1 + b).
3. `feedback` g below 1 weighs the ways down (Xie & Seung 2003); the energy and so the gradient stay exact.
4. Adam by default.
"""

import cmath
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.energy.fixed_point import Settled, Solver, States
from altprop.rules.energy.hopfield import Hopfield, System, Top, ascend, drive, linear, pull_back, squared_error, squash
from altprop.rules.losses import output_error

NUDGES = ("positive", "negative", "centred", "holomorphic")


class EquilibriumPropagation(Hopfield):
    """Equilibrium propagation on perceptrons and convolutional nets with bounded activations.

    Arguments:
        nudge: "positive", "negative", "centred" or "holomorphic" (linear layers with tanh or sigmoid, squared error).
        beta: strength b > 0 of the nudge; below 1 where the output is nudged the wrong way, too.
        points: N of the holomorphic nudge.
        output: "squared", or "cross-entropy" for a readout outside of the system.
        nudged_sweeps: the limit of a nudged phase, if it is another one than that of the free phase.
        The others are those of `Hopfield` and `Rule`.
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
        beta: float = 0.1,
        points: int = 4,
        output: str = "squared",
        nudged_sweeps: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self.nudge, self.beta, self.output = nudge, beta, output
        self.nudged = Solver(
            self.solver.kind, nudged_sweeps or self.solver.sweeps, self.solver.tolerance, self.solver.rate
        )
        self._check()
        self.nudges = self._nudges(points)

    def _check(self) -> None:
        name = f"EquilibriumPropagation(nudge={self.nudge!r}, beta={self.beta}, output={self.output!r})"
        if self.nudge not in NUDGES:
            raise UsageError(f"{name}: choose a nudge among {', '.join(NUDGES)}")
        if self.output not in ("squared", "cross-entropy"):
            raise UsageError(f"{name}: choose the output 'squared' or 'cross-entropy'")
        if not 0.0 < self.beta < (float("inf") if self.nudge == "positive" else 1.0):
            raise UsageError(f"{name}: beta must be positive, and below 1 unless the nudge is 'positive'")
        if self.output == "cross-entropy" and (
            self.problem.kind == "regression" or nets.output_layer(self.net) is None or len(self.net) < 2
        ):
            raise UsageError(f"{name}: a softmax readout needs classes, an output block and a hidden block below it")
        analytic = all(
            linear(b) is not None and not isinstance(getattr(b, "activation", None), nn.Hardtanh) for b in self.net
        )
        if self.nudge == "holomorphic" and (self.output != "squared" or not analytic):
            raise UsageError(f"{name}: complex states need linear layers, tanh or sigmoid, and output='squared'")

    def _nudges(self, points: int) -> list[tuple[complex | float, complex | float]]:
        """(nudge, weight of its phase in the gradient); a nudge of 0 is the free phase itself."""
        b = self.beta
        if self.nudge == "positive":
            return [(b, 1 / b), (0.0, -1 / b)]
        if self.nudge == "negative":
            return [(0.0, 1 / b), (-b, -1 / b)]
        if self.nudge == "centred":
            return [(b, 0.5 / b), (-b, -0.5 / b)]
        if points < 2:
            raise UsageError(f"EquilibriumPropagation(points={points}): a holomorphic nudge needs two points or more")
        roots = [cmath.exp(2j * cmath.pi * k / points) for k in range(points)]
        return [(b * w, 1 / (points * b * w)) for w in roots]

    def system(self, x: Float[Tensor, "batch ..."]) -> System:
        blocks = list(self.net)
        inside = blocks[:-1] if self.output == "cross-entropy" else blocks
        return System(inside, drive(blocks[0], x), self.feedback)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        top = super().forward(x)
        return drive(self.net[-1], top) if self.output == "cross-entropy" else top

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        system = self.system(x)
        free = system.relax(system.feed_forward(), self.solver)
        target = self.target(y, x)
        nudged = self._nudged(system, free.states, target)
        self.contrast(x, self._phases(free.states, nudged.states, len(x)))
        if self.output == "cross-entropy":
            loss = self._learn_readout(free.states[-1], y)
        else:
            loss = squared_error(free.states[-1], target)
        return {"loss": loss, **self.settling(free, nudged)}

    def _nudged(self, system: System, free: States, target: Float[Tensor, "batch outputs"]) -> Settled:
        """All nudged phases in one batch."""
        strengths = [b for b, _ in self.nudges if b != 0]
        count, dtype = len(strengths), free[0].dtype
        if self.nudge == "holomorphic":
            dtype = torch.promote_types(dtype, torch.complex64)
        b = torch.tensor(strengths, dtype=dtype, device=target.device).repeat_interleave(len(target)).unsqueeze(1)
        start = [s.repeat(count, *[1] * (s.dim() - 1)).to(dtype) for s in free]
        top = self._top(b, target.repeat(count, 1))
        return system.copies(count, dtype).relax(start, self.nudged, top)

    def _top(self, b: Shaped[Tensor, "batch 1"], target: Float[Tensor, "batch outputs"]) -> Top:
        """The law of the last states: under E + b C, or (the states below a readout) a step of it."""
        if self.output == "cross-entropy":
            return partial(_pushed_by_readout, self.net, b, target)
        block = self.net[-1]
        if nets.output_layer(self.net) is not None:
            pull, shrink = b * target, 1 / (1 + b)
            return lambda u, s: (u + pull) * shrink
        return lambda u, s: squash(block, u - b * (s - target))

    def _phases(self, free: States, nudged: States, batch: int) -> list[tuple[complex | float, States]]:
        """What each phase counts for, and its states."""
        parts = iter(zip(*(s.split(batch) for s in nudged), strict=True))
        return [(weight, free if b == 0 else list(next(parts))) for b, weight in self.nudges]

    def _learn_readout(self, s: Float[Tensor, "batch ..."], y: Tensor) -> Float[Tensor, ""]:
        last = len(self.net) - 1
        loss, e = output_error(drive(self.net[last], s), y, self.problem.kind)
        if f"blocks.{last}" in self.optimizers:
            ascend(self.net[last], s, -e, len(e))
            self.update(f"blocks.{last}")
        return loss


def _pushed_by_readout(net: nn.Sequential, b: Tensor, target: Tensor, u: Tensor, s: Tensor) -> Tensor:
    """The last states below a softmax readout, moved against its loss."""
    readout = net[-1]
    error = drive(readout, s).softmax(1) - target
    return squash(net[-2], u - b * pull_back(readout, s, error))
