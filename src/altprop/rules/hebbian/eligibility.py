"""Eligibility of a recurrent spiking block's synapses: what they saw, filtered, and what came of it (see `EProp`)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets


class Synapses:
    """What the synapses of one recurrent block remember of one batch, and what they change by.

    Columns are the block's inputs, its own spikes and the bias.

    Arguments:
        kappa: of the readout's filter, which each synapse follows; 0: it keeps nothing, and a step is one product.
    """

    def __init__(self, block: nets.RecurrentIntegrateAndFire, batch: int, kappa: float) -> None:
        self.block, self.kappa = block, kappa
        weight = block.recurrent.weight
        units, synapses = len(weight), block.input.in_features + len(weight) + 1
        self.eps = weight.new_zeros(batch, synapses)
        self.slope = weight.new_zeros(batch, units)
        self.change = weight.new_zeros(units, synapses)
        self.ebar = weight.new_zeros(batch, units, synapses) if kappa else None

    def see(self, row: Float[Tensor, "batch synapses"], v: Float[Tensor, "batch units"]) -> None:
        """One time step: (x_t, z_{t-1}, 1) and v_t."""
        self.eps.mul_(self.block.decay).add_(row)
        self.slope = self.block.slope(v)
        if self.ebar is not None:
            h = self.slope.unsqueeze(2)
            self.ebar.baddbmm_(h, self.eps.unsqueeze(1), beta=self.kappa, alpha=1 - self.kappa)

    def learn(self, signal: Float[Tensor, "batch units"]) -> None:
        """Add L_t ebar_t, summed over the batch."""
        if self.ebar is None:
            self.change.addmm_((signal * self.slope).T, self.eps)
        else:
            self.change += torch.einsum("bj,bji->ji", signal, self.ebar)

    def layers(self) -> list[nn.Linear]:
        return [self.block.input, self.block.recurrent]
