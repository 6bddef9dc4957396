"""Neurons that live in time: leaky integrate-and-fire, and leaky rate neurons.

They are activations of a block, and follow its affine layer: sums z over time, (batch, time, features) or (batch, time,
channels, height, width), to outputs of the same shape. Sums without a time axis (of a static input) are held for
`steps` time steps, so that the affine layer before them runs once.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.observe import Observed

SHOWS = ("voltage", "surrogate")


def over_time(z: Tensor, steps: int | None) -> Float[Tensor, "batch time ..."]:
    """The sums with a time axis: batch, features and channels with their sides are odd in number only with one."""
    if z.dim() % 2:
        if z.shape[1] == 0:
            raise UsageError(f"a neuron that lives in time got sums of shape {tuple(z.shape)}, of no time step at all")
        return z
    if steps is None:
        raise UsageError(
            f"a neuron that lives in time got sums of shape {tuple(z.shape)} without a time axis; give (batch, time, "
            "...), or hold a static input for some steps: steps=8"
        )
    return z.unsqueeze(1).expand(-1, steps, *z.shape[1:])


def whole(steps: int | None) -> bool:
    """Whether static sums can be held for so many steps; None: they are not held."""
    return steps is None or (isinstance(steps, int) and steps >= 1)


class LeakyIntegrateAndFire(Observed):
    """v_t = decay v_{t-1} + z_t - threshold s_{t-1}, s_t = 1 where v_t >= threshold; v_0 = s_0 = 0.

    Arguments:
        steps: how long static sums are held; None: they must have a time axis.
        decay: of the voltage in one step, in [0, 1].
        threshold: at which a neuron fires, and what a spike takes from the voltage.
        shows: what a loss on the block looks at: the "voltage", or a "surrogate" of the spikes, sigmoid(slope (v_t -
            threshold)), before they are fired (Kohan et al. 2022, arXiv 2204.01723).
        derivative: whether spikes have the derivative of that surrogate, as backprop through spikes needs it (Neftci et
            al. 2019, arXiv 1901.09948); otherwise they have none. What a spike takes from the voltage never has one.
        slope: of the surrogate.
    """

    def __init__(
        self,
        steps: int | None = None,
        *,
        decay: float = 0.9,
        threshold: float = 1.0,
        shows: str = "voltage",
        derivative: bool = False,
        slope: float = 4.0,
    ) -> None:
        super().__init__()
        if shows not in SHOWS or not 0 <= decay <= 1 or threshold <= 0 or slope <= 0 or not whole(steps):
            raise UsageError(
                f"LeakyIntegrateAndFire: shows={shows!r} must be one of {', '.join(SHOWS)}, decay={decay} in [0, 1], "
                f"threshold={threshold} and slope={slope} positive, and steps={steps} a positive whole number"
            )
        self.steps, self.decay, self.threshold = steps, decay, threshold
        self.shows, self.derivative, self.slope = shows, derivative, slope

    def respond(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = over_time(z, self.steps)
        v = torch.zeros_like(z[:, 0])
        spike = torch.zeros_like(v)
        voltages, spikes = [], []
        for z_t in z.unbind(1):
            v = self.decay * v + z_t - self.threshold * spike.detach()
            spike = self._fire(v)
            voltages.append(v)
            spikes.append(spike)
        voltage = torch.stack(voltages, 1)
        return torch.stack(spikes, 1), voltage if self.shows == "voltage" else self._surrogate(voltage)

    def _fire(self, v: Tensor) -> Tensor:
        fired = (v.detach() >= self.threshold).to(v)
        if not self.derivative:
            return fired
        smooth = self._surrogate(v)
        return smooth + (fired - smooth).detach()

    def _surrogate(self, v: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * (v - self.threshold))

    def extra_repr(self) -> str:
        return f"steps={self.steps}, decay={self.decay}, threshold={self.threshold}, shows={self.shows!r}"


class LeakyRate(nn.Module):
    """h_t = h_{t-1} + rate (f(z_t) - h_{t-1}), h_0 = 0: Euler's steps of tau dh/dt = f(z) - h, with rate = dt / tau.

    Arguments:
        f: the static activation, of which a constant z makes the neuron's fixed point.
        steps: how long static sums are held; None: they must have a time axis.
        rate: in (0, 1].
    """

    def __init__(self, f: nn.Module, steps: int | None = None, *, rate: float = 0.3) -> None:
        super().__init__()
        if not 0 < rate <= 1 or not whole(steps):
            raise UsageError(
                f"LeakyRate: rate={rate} must be above 0 and at most 1, and steps={steps} a positive whole number"
            )
        self.f, self.steps, self.rate = f, steps, rate

    def forward(self, z: Tensor) -> Float[Tensor, "batch time ..."]:
        drive = over_time(self.f(z), self.steps)
        h = torch.zeros_like(drive[:, 0])
        states = []
        for d in drive.unbind(1):
            h = torch.lerp(h, d, self.rate)
            states.append(h)
        return torch.stack(states, 1)


class MeanOverTime(nn.Module):
    """(batch, time, ...) to (batch, ...): a rate code, which an output block can read."""

    def forward(self, x: Float[Tensor, "batch time ..."]) -> Float[Tensor, "batch ..."]:
        return x.mean(1)


class Cell(Observed):
    """A neuron of another library over time: called as `cell(z_t, state)`, it gives spikes and its new voltage.

    For snntorch's, e.g. `Cell(snntorch.Leaky(beta=0.9), steps=8)`; a loss on the block looks at the voltage.
    """

    def __init__(self, cell: Any, steps: int | None = None) -> None:
        super().__init__()
        if not whole(steps):
            raise UsageError(f"Cell: steps={steps} must be a positive whole number")
        self.cell, self.steps = cell, steps

    def respond(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = over_time(z, self.steps)
        v = torch.zeros_like(z[:, 0])
        spikes, voltages = [], []
        for z_t in z.unbind(1):
            spike, v = self._stepped(z_t, v)
            spikes.append(spike)
            voltages.append(v)
        return torch.stack(spikes, 1), torch.stack(voltages, 1)

    def _stepped(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        try:
            spike, v = self.cell(z, v)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Cell: {type(self.cell).__name__} is not called as cell(sums, voltage), to give spikes and the new "
                f"voltage ({error}); take one that has one state and does not keep it, such as snntorch.Leaky(beta=0.9)"
            ) from error
        return spike, v
