"""Bidirectional predictive coding: one energy predicts each state from below and from above, so one net classifies
and draws.

Oliviers, Tang & Bogacz 2025, "Bidirectional predictive coding" (arXiv 2505.23415). Blocks F_l(x) = f(W_l x + b_l) map
state x_l to the one above, mirrored blocks G_l(x) = g(V_l x + c_l) map x_{l+1} to the one below; x_0 is the input, x_L
the label. One sample's energy:

    E = alpha_up/2 sum_l ||x_{l+1} - F_l(x_l)||^2 + alpha_down/2 sum_l ||x_l - G_l(x_{l+1})||^2

    start    x_{l+1} = F_l(x_l)                     bottom-up; in training the output is then clamped to the label
    relax    x_l <- x_l - rate dE/dx_l              for every state that is not clamped, `sweeps` times
    learn    dE/dW_l, dE/dV_l at the relaxed states, mean over the batch; each from the error of its own block alone

Prediction is the bottom-up pass, x_L = F_{L-1}(...F_0(x)). Drawing clamps the label and goes down; completing an image
clamps the pixels that are known; both then relax the same energy.

Departures from the paper:
1. A block predicts with its activation, F(x) = f(W x + b), instead of W f(x), and the mirrored block with that of the
   block below it (none for pixels): states are what blocks give, and pixels are predicted linearly.
2. Predictions are the bottom-up pass alone, not relaxed.
3. A fixed number of sweeps of plain gradient descent; all units of a layer share one precision.
4. Adam on all weights, with a small eps: what V learns from is multiplied by alpha_down, which may be 1e-4.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule
from altprop.rules.energy.coding import SMALL_EPS_ADAM, target_of
from altprop.rules.energy.linear_blocks import activation_of, before_activation, fill_gradients, layer_of, refusal


@dataclass(frozen=True)
class States:
    """All states at one moment, and what is predicted for them: up[l] = F_l(x[l]), down[l] = G_l(x[l + 1])."""

    x: Sequence[Tensor]
    up: Sequence[Tensor]
    down: Sequence[Tensor]


Free = Mapping[int, float | Tensor]
"""Which states may move, by their place: 1, or a mask that is 1 where they may."""


class BidirectionalPredictiveCoding(Rule):
    """Predictive coding in both directions at once, which classifies, draws and completes.

    For nets of linear blocks without norms that end in an output block.

    Arguments:
        sweeps: relaxation sweeps per batch.
        rate: of the states.
        alpha_up, alpha_down: weights of what is predicted from below, and from above. Small alpha_down (1e-4) is best
            for classifying; for drawing it wants to be larger (0.1). They and the rate are attributes, and may be
            others when images are completed (1 and 1).
        The others are those of `Rule`; the parts are "blocks.0", ... and "down.0", ... (the mirrored blocks).

    Metrics: "loss", half the squared error at the output before relaxing; "energy" after it; "residual", the length of
    dE/dx over the hidden states in the last sweep (means over the batch).
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
        sweeps: int = 4,
        rate: float = 0.03,
        alpha_up: float = 1.0,
        alpha_down: float = 1e-4,
        optimizer: OptimizerSpec = SMALL_EPS_ADAM,
        **options: Any,
    ) -> None:
        if sweeps < 1 or not all(value > 0 for value in (rate, alpha_up, alpha_down)):
            raise UsageError(
                f"BidirectionalPredictiveCoding(sweeps={sweeps}, rate={rate}, alpha_up={alpha_up}, "
                f"alpha_down={alpha_down}): give at least one sweep, and numbers above 0"
            )
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.sweeps, self.rate, self.alpha_up, self.alpha_down = sweeps, rate, alpha_up, alpha_down
        below = [None, *(activation_of(block) for block in net)]
        self.down = nn.ModuleList(
            mirrored(layer_of(block), f, self.generator) for block, f in zip(net, below, strict=False)
        )
        for i, block in enumerate(self.down):
            self.add_part(f"down.{i}", block)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch inputs"], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        target = target_of(x, y, self.problem)
        now = self.upward(x, target)
        loss = 0.5 * (now.up[-1] - target).square().sum(1).mean()
        now, residual = self.relax(now, dict.fromkeys(range(1, len(self.net)), 1.0), self.sweeps)
        for i, block in enumerate(self.net):
            self._descend(f"blocks.{i}", block, now.up[i], now.x[i + 1], now.x[i], self.alpha_up)
        for i, block in enumerate(self.down):
            self._descend(f"down.{i}", block, now.down[i], now.x[i], now.x[i + 1], self.alpha_down)
        return {"loss": loss, "energy": self.energy(now).mean(), "residual": residual.mean()}

    def _descend(self, part: str, block: nn.Module, guess: Tensor, state: Tensor, source: Tensor, alpha: float) -> None:
        """The block learns to predict the state from the source, where it has guessed."""
        if part in self.optimizers:
            fill_gradients(block, before_activation(block, guess, alpha * (guess - state)), source)
            self.update(part)

    # All states, and their energy.

    def upward(self, x: Float[Tensor, "batch inputs"], top: Float[Tensor, "batch outputs"] | None = None) -> States:
        """The states of the bottom-up pass, the last one replaced by `top`."""
        up: list[Tensor] = []
        for block in self.net:
            up.append(block(up[-1] if up else x))
        states = [x, *up[:-1], up[-1] if top is None else top]
        return States(states, up, [block(h) for block, h in zip(self.down, states[1:], strict=True)])

    def downward(self, top: Float[Tensor, "batch outputs"]) -> States:
        """The states of the top-down pass."""
        down: list[Tensor] = []
        for block in reversed(self.down):
            down.insert(0, block(down[0] if down else top))
        return States([*down, top], [block(h) for block, h in zip(self.net, down, strict=True)], down)

    def moved(self, now: States, states: Mapping[int, Tensor]) -> States:
        """Some states replaced, and only what they predict predicted again."""
        x, up, down = list(now.x), list(now.up), list(now.down)
        for i, h in states.items():
            x[i] = h
            if i < len(self.net):
                up[i] = self.net[i](h)
            if i > 0:
                down[i - 1] = self.down[i - 1](h)
        return States(x, up, down)

    def energy(self, now: States) -> Float[Tensor, " batch"]:
        """E of each sample."""
        up = sum((x - guess).square().sum(1) for x, guess in zip(now.x[1:], now.up, strict=True))
        down = sum((x - guess).square().sum(1) for x, guess in zip(now.x[:-1], now.down, strict=True))
        return 0.5 * (self.alpha_up * torch.as_tensor(up) + self.alpha_down * torch.as_tensor(down))

    def slope(self, now: States, i: int) -> Float[Tensor, "batch width"]:
        """dE/dx_i: the errors of what is predicted for x_i, and of what x_i predicts, pulled back through one block."""
        found = torch.zeros_like(now.x[i])
        if i > 0:
            error = now.x[i - 1] - now.down[i - 1]
            found.add_(now.x[i] - now.up[i - 1], alpha=self.alpha_up)
            found.sub_(pulled(self.down[i - 1], now.down[i - 1], error), alpha=self.alpha_down)
        if i < len(self.net):
            error = now.x[i + 1] - now.up[i]
            found.add_(now.x[i] - now.down[i], alpha=self.alpha_down)
            found.sub_(pulled(self.net[i], now.up[i], error), alpha=self.alpha_up)
        return found

    def relax(self, now: States, free: Free, sweeps: int) -> tuple[States, Float[Tensor, " batch"]]:
        """Sweeps of gradient descent on the free states, all at once; and the length of the last slope."""
        slopes: dict[int, Tensor] = {}
        for _ in range(sweeps):
            slopes = {i: self.slope(now, i) * mask for i, mask in free.items()}
            now = self.moved(now, {i: now.x[i] - self.rate * slope for i, slope in slopes.items()})
        squares = (slope.square().sum(1) for slope in slopes.values())
        return now, sum(squares, now.x[0].new_zeros(len(now.x[0]))).sqrt()

    # Drawing.

    @torch.no_grad()
    def draw(self, y: Int[Tensor, "batch"], sweeps: int = 0) -> Float[Tensor, "batch inputs"]:
        """An input for each label: top-down from the label, then relaxed (all but the label) by so many sweeps."""
        top = nn.functional.one_hot(y, self.problem.outputs).to(next(self.parameters()))
        now, _ = self.relax(self.downward(top), dict.fromkeys(range(len(self.net)), 1.0), sweeps)
        return self._finite(now.x[0])

    @torch.no_grad()
    def complete(
        self, x: Float[Tensor, "batch inputs"], known: Bool[Tensor, "*batch inputs"], sweeps: int = 200
    ) -> Float[Tensor, "batch inputs"]:
        """The input with its unknown values filled in: they begin at 0, and relax together with all states above."""
        x = x * known
        free: Free = {0: (~known).to(x)} | dict.fromkeys(range(1, len(self.net) + 1), 1.0)
        now, _ = self.relax(self.upward(x), free, sweeps)
        return self._finite(now.x[0])

    def _finite(self, drawn: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        if not bool(drawn.isfinite().all()):
            raise UsageError(
                f"BidirectionalPredictiveCoding(rate={self.rate}): the states grew without bound while it drew; lower "
                "its attribute rate, or take fewer sweeps"
            )
        return drawn


def mirrored(layer: nn.Linear, f: nn.Module | None, generator: torch.Generator) -> nets.Block:
    """A block from the layer's outputs to its inputs, with the activation f."""
    back = nets.linear(layer.out_features, layer.in_features, "lecun", generator).to(layer.weight)
    return nets.Block(back, activation=deepcopy(f))


def pulled(
    block: nn.Module, guess: Float[Tensor, "batch outputs"], error: Float[Tensor, "batch outputs"]
) -> Float[Tensor, "batch inputs"]:
    """J^T error, with J the derivative of the block's guess by what went in."""
    return before_activation(block, guess, error) @ layer_of(block).weight
