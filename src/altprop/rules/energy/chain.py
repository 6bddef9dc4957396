"""A chain of states between an input and a label, its energy, and how it relaxes.

One sample's energy, with states x_l, predictions mu_l = F_l(x_{l-1}) and precisions p_l:

    E = 1/2 sum_{l<L} p_l ||x_l - mu_l||^2 + beta C(mu_L, y),    C = 1/2 ||y - mu_L||^2 or the cross-entropy

The errors e_l = p_l (x_l - mu_l) and e_L = -beta dC/dmu_L give all derivatives: dE/dx_l = e_l - J_{l+1}^T e_{l+1} and
dE/dtheta_l = -(d mu_l / d theta_l)^T e_l.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from altprop.rules.energy.prediction import Prediction, each, predict, where

ORDERS = ("jacobi", "gauss-seidel", "red-black")
Rate = float | Float[Tensor, " batch"]
"""Of the states: one for all samples, as long as none has had to halve its own."""


@dataclass(frozen=True)
class Energy:
    """What is minimised: the output's cost ("squared" or "cross-entropy") for a target, times beta (a number, or one a
    sample), and the precisions of the hidden states (all 1 without)."""

    target: Shaped[Tensor, "batch outputs"]
    output: str = "squared"
    beta: float | Float[Tensor, " batch"] = 1.0
    precisions: Sequence[float] | None = None

    def at_output(
        self, mu: Float[Tensor, "batch outputs"]
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, " batch"]]:
        """e_L = -beta dC/dmu_L, and beta C."""
        if self.output == "squared":
            error = self.target - mu
            energy = 0.5 * squared_size([error])
        else:
            target, log_p = self.target.T, mu.T.log_softmax(0)  # several times as fast as along the short rows
            energy = torch.linalg.vecdot(target, log_p, dim=0).neg_()
            error = (target - log_p.exp()).T
        if isinstance(self.beta, Tensor):
            return each(self.beta, error) * error, self.beta * energy
        return (error, energy) if self.beta == 1.0 else (self.beta * error, self.beta * energy)

    def error(
        self, i: int, x: Float[Tensor, "batch ..."], mu: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """p (x - mu) behind block i, counted from 0."""
        return x - mu if self.precisions is None else self.precisions[i] * (x - mu)

    def total(self, errors: Sequence[Tensor | None], cost: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """1/2 sum_l ||e_l||^2 / p_l of the hidden errors, and the output's cost."""
        if self.precisions is not None:
            errors = [None if e is None else e / p**0.5 for e, p in zip(errors, self.precisions, strict=True)]
        present = [e for e in errors if e is not None]
        return torch.add(cost, squared_size(present), alpha=0.5) if present else cost


@dataclass(eq=False, slots=True)
class Chain:
    """All states at one moment, counted from 0: predictions[i] is block i's, from the state predictions[i].x below it.

    errors[i] belongs to the state above block i; None where it is exactly zero because no error has arrived yet.
    energy is each sample's, over all blocks; cost that of the output alone. velocities[i] is the momentum of the state
    below block i; moves are the v of the sweep that led here, of the states that it moved.
    """

    predictions: Sequence[Prediction]
    errors: Sequence[Tensor | None]
    energy: Float[Tensor, " batch"]
    cost: Float[Tensor, " batch"]
    velocities: Sequence[Tensor | None]
    moves: Sequence[Tensor] = ()


def squared_size(parts: Sequence[Float[Tensor, "batch ..."]]) -> Float[Tensor, " batch"]:
    """Each sample's sum of squares over all parts."""
    first, *others = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]
    total: Tensor = first.square()
    for norm in others:
        total = torch.addcmul(total, norm, norm)
    return total


# Where a chain begins.


def feed_forward(blocks: Sequence[nn.Module], x: Float[Tensor, "batch ..."], energy: Energy) -> Chain:
    """Every hidden state at its prediction, x_l = mu_l: only the output has an error."""
    predictions = [predict(blocks[0], x, clamped=True)]
    for block in blocks[1:]:
        predictions.append(predict(block, predictions[-1].mu))
    error, cost = energy.at_output(predictions[-1].mu)
    nothing = [None] * (len(blocks) - 1)
    return Chain(predictions, [*nothing, error], cost, cost, [None, *nothing])


def at(first: Prediction, states: Sequence[Prediction], energy: Energy, still: int = 0) -> Chain:
    """The chain of these predictions: of block 0 from the input, and of the others from the states below them.

    No error has arrived yet above the first `still` blocks.
    """
    predictions = [first, *states]
    error, cost = energy.at_output(predictions[-1].mu)
    errors: list[Tensor | None] = [None] * max(still, 0)
    for i in range(len(errors), len(states)):
        errors.append(energy.error(i, predictions[i + 1].x, predictions[i].mu))
    return Chain(predictions, [*errors, error], energy.total(errors, cost), cost, [None] * len(predictions))


def from_zero(blocks: Sequence[nn.Module], x: Float[Tensor, "batch ..."], energy: Energy) -> Chain:
    """Every hidden state at zero."""
    start = feed_forward(blocks, x, energy)
    states = [predict(p.block, torch.zeros_like(p.x)) for p in start.predictions[1:]]
    return at(start.predictions[0], states, energy)


def side_by_side(free: Chain, copies: int, energy: Energy) -> Chain:
    """A feed-forward chain several times over, as one batch, under another energy; the hidden states have no errors.

    Block 0's prediction is repeated, not made again: its input and its weights' gradient stay those of one copy.
    """
    first = free.predictions[0]
    predictions = [replace(first, mu=torch.cat([first.mu] * copies))]
    predictions += [predict(p.block, torch.cat([p.x.detach()] * copies)) for p in free.predictions[1:]]
    error, cost = energy.at_output(predictions[-1].mu)
    nothing = [None] * (len(predictions) - 1)
    return Chain(predictions, [*nothing, error], cost, cost, [None, *nothing])


# How it relaxes.


@cache
def groups(order: str, blocks: int) -> tuple[range, ...]:
    """Which states, counted as the blocks above them, move at once; every group sees what the ones before have done.

    "jacobi": all of them; "gauss-seidel": one by one, from the output down; "red-black": every second one, then the
    rest.
    """
    if order == "jacobi":
        return (range(blocks - 1, 0, -1),)
    if order == "red-black":
        return range(blocks - 1, 0, -2), range(blocks - 2, 0, -2)
    return tuple(range(i, i - 1, -1) for i in range(blocks - 1, 0, -1))


def velocity(slope: Float[Tensor, "batch ..."], before: Tensor | None, momentum: float) -> Float[Tensor, "batch ..."]:
    """momentum * before + slope."""
    return slope if before is None else torch.add(slope, before, alpha=momentum)


def stepped(x: Float[Tensor, "batch ..."], v: Float[Tensor, "batch ..."], rate: Rate) -> Float[Tensor, "batch ..."]:
    """x + rate v."""
    return torch.addcmul(x, v, each(rate, v)) if isinstance(rate, Tensor) else torch.add(x, v, alpha=rate)


def propose(now: Chain, energy: Energy, rate: Rate, order: str = "jacobi", momentum: float = 0.0) -> Chain:
    """One sweep, x_l <- x_l + rate v_l with v_l <- momentum v_l + J_{l+1}^T e_{l+1} - e_l; the input never moves.

    A state whose error above is exactly zero is left as it is: the error climbs down one group a sweep.
    """
    predictions, errors, velocities = list(now.predictions), list(now.errors), list(now.velocities)
    last, moves = len(predictions) - 1, []
    for group in groups(order, len(predictions)):
        moved: dict[int, Prediction] = {}
        for i in group:
            above, old = errors[i], predictions[i]
            if above is not None:
                v = velocity(old.pull_back(above, errors[i - 1]), velocities[i], momentum)
                velocities[i] = v if momentum else None
                moves.append(v)
                moved[i] = old.again(stepped(old.x, v, rate))
        for i, prediction in moved.items():
            predictions[i] = prediction
        for j in {j for i in moved for j in (i - 1, i) if j != last}:
            errors[j] = energy.error(j, predictions[j + 1].x, predictions[j].mu)
    errors[last], cost = energy.at_output(predictions[last].mu)
    return Chain(predictions, errors, energy.total(errors[:last], cost), cost, velocities, moves)


def has_fallen(now: Chain, proposed: Chain) -> Bool[Tensor, " batch"]:
    """Which samples' energy is not higher than it was by more than rounding; NaN is."""
    rounding = 8 * torch.finfo(now.energy.dtype).eps
    return proposed.energy <= torch.add(now.energy, now.energy.abs(), alpha=rounding)


def accept(now: Chain, proposed: Chain, rate: Rate) -> tuple[Chain, Rate]:
    """The proposed chain; samples whose energy rose (or is NaN) stay where they are, without their momentum, and halve
    their rate if they had none."""
    fell = has_fallen(now, proposed)
    if bool(fell.all()):
        return proposed, rate
    rose = ~fell
    predictions = [
        new if new is old else new.back_where(rose, old)  # type: ignore[arg-type]
        for new, old in zip(proposed.predictions, now.predictions, strict=True)
    ]
    errors = [
        None if new is None else where(rose, torch.zeros_like(new) if old is None else old, new)
        for new, old in zip(proposed.errors, now.errors, strict=True)
    ]
    energy, cost = torch.where(rose, now.energy, proposed.energy), torch.where(rose, now.cost, proposed.cost)
    velocities = [None if v is None else where(rose, torch.zeros_like(v), v) for v in proposed.velocities]
    chain = replace(proposed, predictions=predictions, errors=errors, energy=energy, cost=cost, velocities=velocities)
    had_none = torch.ones_like(rose)
    for v in now.velocities:
        if v is not None:
            had_none &= (v == 0).flatten(1).all(1)
    rates = rate if isinstance(rate, Tensor) else torch.full_like(energy, rate)
    return chain, torch.where(rose & had_none, rates / 2, rates)


def settle(
    now: Chain,
    energy: Energy,
    sweeps: int,
    rate: float,
    order: str = "jacobi",
    momentum: float = 0.0,
    monitor: bool = True,
) -> tuple[Chain, Rate, Float[Tensor, ""]]:
    """The chain after `sweeps` sweeps, the rate that is left, and the residual before the last sweep."""
    rates: Rate = rate
    for sweep in range(1, sweeps + 1):
        proposed = propose(now, energy, rates, order, momentum)
        if sweep == sweeps:
            unsettled = relative(proposed.moves, now)
        now, rates = accept(now, proposed, rates) if monitor else (proposed, rates)
    return now, rates, unsettled


def mean_rate(rate: Rate, like: Tensor) -> Float[Tensor, ""]:
    """Over the samples, in the dtype and on the device of `like`."""
    return rate.mean() if isinstance(rate, Tensor) else like.new_full((), rate)


def relative(slopes: Sequence[Tensor], now: Chain) -> Float[Tensor, ""]:
    """How far `now` is from equilibrium: ||dE/dx|| / ||e|| of a sample (||v|| with momentum), mean over the batch."""
    if not slopes:
        return torch.zeros((), dtype=now.energy.dtype, device=now.energy.device)
    errors = squared_size([e for e in now.errors if e is not None])
    return (squared_size(slopes) / errors.clamp_min(torch.finfo(errors.dtype).tiny)).sqrt_().mean()
