"""Relaxing the states of a net to a fixed point, s_i = move(i, s): one engine for all rules that settle.

"damped":       all states at once, s <- s + rate (move(s) - s)
"asynchronous": even states, then odd ones, each seeing the new values (in a row of layers nothing is lost in parallel)
"anderson":     the damped step, made from the last five ones by least squares, each sample alone
                (Walker & Ni 2011, doi 10.1137/10078356X; Bai et al. 2019, arXiv 1909.01377)

Every fourth sweep is looked at, and relaxation ends when no unit of any sample moves by more than the tolerance
(times the largest value, where that is above 1: rounding errors grow with it).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from altprop.errors import UsageError
from altprop.rule import Metrics, Rule

States = list[Tensor]
Move = Callable[[int, States], Tensor]
"""The value that state i would have with all the others as they are."""

KINDS = ("asynchronous", "damped", "anderson")
LOOK = 4
MEMORY = 5


@dataclass(frozen=True)
class Solver:
    """How to relax: at most so many sweeps, until nothing moves by more than the tolerance."""

    kind: str = "asynchronous"
    sweeps: int = 500
    tolerance: float = 1e-5
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"solver={self.kind!r} is not known; choose one of {', '.join(KINDS)}")
        if self.sweeps < 1 or self.tolerance < 0.0 or not 0.0 < self.rate <= 1.0:
            raise UsageError(
                f"sweeps={self.sweeps}, tolerance={self.tolerance}, rate={self.rate}: give at least one sweep, a "
                "tolerance of 0 or more, and a rate in (0, 1]"
            )


@dataclass(frozen=True)
class Settled:
    """Where relaxation ended. residual: the largest move of the last sweep, relative to values above 1."""

    states: States
    residual: Float[Tensor, ""]
    sweeps: int


@torch.no_grad()
def relax(move: Move, start: Sequence[Tensor], solver: Solver) -> Settled:
    """Relax from `start`; each state is (batch, ...), real or complex."""
    states, mixing = list(start), Anderson(solver.rate)
    for sweep in range(1, solver.sweeps + 1):
        old, looked = states, sweep % LOOK == 0 or sweep == solver.sweeps
        if solver.kind == "asynchronous":
            states = list(old)
            for i in (*range(0, len(old), 2), *range(1, len(old), 2)):
                states[i] = damped(old[i], move(i, states), solver.rate)
            moved = states
        else:
            moved = [move(i, old) for i in range(len(old))]
            if solver.kind == "anderson":
                states = mixing(old, moved)
            else:
                states = [damped(s, m, solver.rate) for s, m in zip(old, moved, strict=True)]
        if looked:
            residual = largest([m - s for s, m in zip(old, moved, strict=True)]) / largest(old).clamp(min=1.0)
            if bool(residual <= solver.tolerance):
                break
    return Settled(states, residual, sweep)


def largest(states: States) -> Float[Tensor, ""]:
    return torch.stack([s.abs().max() for s in states]).max()


def damped(old: Tensor, new: Tensor, rate: float) -> Tensor:
    return new if rate == 1.0 else torch.lerp(old, new, rate)


@dataclass
class Anderson:
    """Keeps the last states and moves of each sample, flattened."""

    rate: float
    states: list[Inexact[Tensor, "batch units"]] = field(default_factory=list)
    moves: list[Inexact[Tensor, "batch units"]] = field(default_factory=list)

    def __call__(self, old: States, moved: States) -> States:
        s = torch.cat([t.flatten(1) for t in old], 1)
        self.states = [*self.states[-MEMORY:], s]
        self.moves = [*self.moves[-MEMORY:], torch.cat([t.flatten(1) for t in moved], 1) - s]
        mixed = self._mix()
        return [part.view_as(t) for part, t in zip(mixed.split([t[0].numel() for t in old], 1), old, strict=True)]

    def _mix(self) -> Inexact[Tensor, "batch units"]:
        """s + rate f - (dS + rate dF) w, where w leaves the least of f - dF w; 0 for a sample whose f just grew."""
        s, f = self.states[-1], self.moves[-1]
        if len(self.states) == 1:
            return s + self.rate * f
        ds, df = (torch.stack(past, 2).diff(dim=2) for past in (self.states, self.moves))
        gram = df.mT @ df
        trace, eps = gram.diagonal(dim1=1, dim2=2).sum(1), torch.finfo(s.dtype).eps
        shift = (10 * eps * trace + eps**2)[:, None, None] * torch.eye(gram.size(1)).to(gram)
        w = torch.linalg.solve(gram + shift, df.mT @ f.unsqueeze(2))
        grew = f.abs().square().sum(1) > self.moves[-2].abs().square().sum(1)
        w = w.masked_fill(grew[:, None, None], 0.0)
        mixed: Tensor = s + self.rate * f - ((ds + self.rate * df) @ w).squeeze(2)
        return mixed


def settling(rule: Rule, solver: Solver, *phases: Settled) -> Metrics:
    """What a step reports of its phases; warns once a rule if one of them did not settle."""
    residual = torch.stack([phase.residual for phase in phases]).max()
    unsettled = residual > solver.tolerance
    if solver.tolerance > 0.0 and bool(unsettled):
        warn_unsettled(rule, float(residual), solver)
    sweeps = residual.new_tensor(float(sum(phase.sweeps for phase in phases)))
    return {"residual": residual, "iterations": sweeps, "unsettled": unsettled.to(residual.dtype)}


def warn_unsettled(rule: Rule, residual: float, solver: Solver) -> None:
    """Once a rule: its states still move."""
    if getattr(rule, "_warned", False):
        return
    rule.__dict__["_warned"] = True
    warnings.warn(
        f"{type(rule).__name__}: after {solver.sweeps} sweeps states still move by {residual:.1e} (tolerance "
        f"{solver.tolerance:.1e}), so its updates are not what they should be; give it more sweeps, smaller weights, "
        "weaker feedback, or a larger tolerance",
        stacklevel=4,
    )
