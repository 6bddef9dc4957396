"""Recurrent blocks of leaky integrate-and-fire neurons, for sequences.

A recurrent block maps (batch, time, features) to (batch, time, units), and can be run one time step after another:
`initial(batch)` gives its state before the first step, `one(x_t, state)` the next one.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.block import Block
from altprop.nets.mlp import linear
from altprop.nets.neurons import LeakyRate, MeanOverTime, whole

State = tuple[Float[Tensor, "batch units"], Float[Tensor, "batch units"]]
"""Voltages and spikes."""


class RecurrentIntegrateAndFire(nn.Module):
    """v_t = decay v_{t-1} + W x_t + b + R z_{t-1} - threshold z_{t-1}, z_t = 1 where v_t >= threshold; v_0 = z_0 = 0.

    Arguments:
        inputs, units: W is (units, inputs), R (units, units).
        decay: of the voltage in one step, in [0, 1].
        threshold: at which a neuron fires, and what a spike takes from the voltage.
        dampening: gamma of the pseudo-derivative of a spike by its voltage, gamma max(0, 1 - |v - threshold| /
            threshold) / threshold (Bellec et al. 2018, arXiv 1803.09574).
        derivative: whether spikes have it in autograd too, as backprop through time needs; otherwise they have none.
            What a spike takes from the voltage never has one.
        init: of W, as in `mlp`; R is N(0, 1 / (4 units)).
        generator: source of the weights; a fresh one with seed 0 if left out.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        decay: float = 0.9,
        threshold: float = 1.0,
        dampening: float = 0.3,
        derivative: bool = False,
        init: str = "kaiming",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= decay <= 1 or threshold <= 0 or dampening <= 0:
            raise UsageError(
                f"RecurrentIntegrateAndFire: decay={decay} must be in [0, 1], threshold={threshold} and "
                f"dampening={dampening} positive"
            )
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        self.input = linear(inputs, units, init, generator)
        self.recurrent = linear(units, units, "lecun", generator, bias=False)
        with torch.no_grad():
            self.recurrent.weight.mul_(0.5)
        self.decay, self.threshold, self.dampening, self.derivative = decay, threshold, dampening, derivative

    def initial(self, batch: int) -> State:
        rest = self.recurrent.weight.new_zeros(batch, len(self.recurrent.weight))
        return rest, rest

    def one(self, x: Float[Tensor, "batch features"], state: State) -> State:
        return self._next(self.input(x), state)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch time units"]:
        state, spikes = self.initial(len(x)), []
        for drive in self.input(sequence(x)).unbind(1):
            state = self._next(drive, state)
            spikes.append(state[1])
        return torch.stack(spikes, 1)

    def slope(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The pseudo-derivative of spikes by their voltages."""
        return (1 - self._distance(v).abs()).mul_(self.dampening / self.threshold)

    def _next(self, drive: Float[Tensor, "batch units"], state: State) -> State:
        v, z = state
        v = self.decay * v + drive + self.recurrent(z) - self.threshold * z.detach()
        fired = (v.detach() >= self.threshold).to(v)
        if not self.derivative:
            return v, fired
        u = self._distance(v)
        smooth = self.dampening * (u - 0.5 * u * u.abs())  # its derivative is the slope
        return v, smooth + (fired - smooth).detach()

    def _distance(self, v: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """From the threshold, in units of the threshold, cut off at -1 and 1."""
        return ((v - self.threshold) / self.threshold).clamp(-1.0, 1.0)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, threshold={self.threshold}, dampening={self.dampening}"


def sequence(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch time features"]:
    """The same; raises UsageError where it is no sequence."""
    if x.dim() != 3 or x.shape[1] == 0:
        raise UsageError(
            f"a recurrent block got inputs of shape {tuple(x.shape)}, and takes sequences (batch, time, features); "
            "hold a static input for some steps: steps=8"
        )
    return x


class Hold(nn.Module):
    """A static input, held: (batch, ...) to (batch, steps, ...)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch time ..."]:
        return x.unsqueeze(1).expand(-1, self.steps, *x.shape[1:])

    def extra_repr(self) -> str:
        return f"steps={self.steps}"


def recurrent_spiking(
    widths: Sequence[int],
    *,
    classes: int | None = None,
    steps: int | None = 8,
    rows: bool = False,
    readout: float = 0.0,
    decay: float = 0.9,
    threshold: float = 1.0,
    dampening: float = 0.3,
    derivative: bool = False,
    init: str = "kaiming",
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Recurrent blocks of leaky integrate-and-fire neurons, then the mean over time of their filtered spikes.

    Arguments:
        widths: input width, then the hidden ones.
        classes: adds a linear output block (initialised "lecun"); left out, the net ends in features.
        steps: time steps of a static input (batch, widths[0]); None: inputs are sequences (batch, time, widths[0]).
        rows: whether a static input is cut into `steps` rows, one a time step, or held.
        readout: decay of the filter of the spikes, f_t = readout f_{t-1} + (1 - readout) z_t; 0 makes none.
        decay, threshold, dampening, derivative, init: as in `RecurrentIntegrateAndFire`.
        generator: source of the weights; a fresh one with seed 0 if left out.
    """
    if len(widths) < 2 or any(w < 1 for w in widths) or not whole(steps) or not 0 <= readout < 1:
        raise UsageError(
            f"recurrent_spiking({list(widths)}, steps={steps}, readout={readout}): give the input width and at least "
            "one hidden width, all positive, a positive whole number of steps or None, and a readout in [0, 1)"
        )
    if rows and (steps is None or widths[0] % steps):
        raise UsageError(
            f"recurrent_spiking(rows=True): {widths[0]} inputs cannot be cut into steps={steps} equal rows; give a "
            "number of steps that divides them"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    sizes, blocks = list(widths), list[nn.Module]()
    if steps is not None:
        sizes[0] = sizes[0] // steps if rows else sizes[0]
        blocks.append(Block(pool=nn.Unflatten(1, (steps, sizes[0])) if rows else Hold(steps)))
    for a, b in pairwise(sizes):
        blocks.append(
            RecurrentIntegrateAndFire(
                a,
                b,
                decay=decay,
                threshold=threshold,
                dampening=dampening,
                derivative=derivative,
                init=init,
                generator=generator,
            )
        )
    blocks.append(Block(None, None, LeakyRate(nn.Identity(), rate=1 - readout) if readout else None, MeanOverTime()))
    if classes is not None:
        blocks.append(Block(linear(sizes[-1], classes, "lecun", generator)))
    return nn.Sequential(*blocks)
