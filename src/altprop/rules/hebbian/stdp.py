"""Spike-timing-dependent plasticity: an input that spikes before a neuron does gains, one that spikes after it loses.

Bi & Poo 1998 (doi 10.1523/JNEUROSCI.18-24-10464.1998); traces: Morrison, Diesmann & Gerstner 2008 (doi
10.1007/s00422-008-0233-1); bounds: Gütig, Aharonov, Rotter & Sompolinsky 2003 (doi
10.1523/JNEUROSCI.23-09-03697.2003); competition and constant sums: Diehl & Cook 2015 (doi 10.3389/fncom.2015.00099).
For spikes s of input i and neuron j in each time step, and traces that forget with time constants tau_plus, tau_minus,

    xbar_i(t) = xbar_i(t-1) exp(-1 / tau_plus) + s_i(t),        xbar_j(t) = xbar_j(t-1) exp(-1 / tau_minus) + s_j(t)
    dw_ji = plus (w_max - w_ji)^mu < s_j(t) xbar_i(t) >  -  minus w_ji^mu < s_i(t) (xbar_j(t) - s_j(t)) >

with means over batch and time: of each pair of spikes, plus exp(-(t_j - t_i) / tau_plus) where t_i <= t_j, and
-minus exp(-(t_i - t_j) / tau_minus) where t_j < t_i. Then weights are cut off at 0 and w_max, and each neuron's
are scaled to the sum that they had ("normalise"). While it learns, at most one neuron of a block fires in a time
step, the one with the highest voltage, and sets back the voltages of all ("compete"); and a neuron that fires more
often than others loses excitability ("homeostasis"):

    b_j <- b_j + homeostasis sigma (1 - j's spikes / the mean of all units')

with sigma the standard deviation of the sums W x + b over the units, so that a block's width and inputs don't matter.

Departures from the papers:
1. One batch is one update. Inputs are evenly spread spikes (`nets.spike_coded`) and no Poisson ones: nothing is drawn.
2. Excitability is the bias of the neuron, not a threshold, and follows the batch; spikes in the same step (t_i = t_j)
   count as "before": a neuron fires in the step in which its input comes.
3. When it predicts, and for the next block, the net is as it stands, without the competition of single spikes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem, passage
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.patches import Layer

Spikes = Float[Tensor, "batch time neurons"]


class STDP(Hebbian):
    """Pair-based STDP (Bi & Poo 1998) for spiking nets, with competition, homeostasis and a readout.

    For nets of `altprop.nets.spike_coded` without an output block.

    Arguments:
        plus, minus: what a pair of spikes adds and takes.
        tau_plus, tau_minus: how many time steps traces of inputs and of neurons last.
        mu: of the bounds: 0 adds and takes the same everywhere, 1 in proportion to the way that is left.
        w_max: the largest weight; the smallest is 0.
        normalise: whether the sum of each neuron's weights stays.
        compete: whether at most one neuron of a block fires at a time, while learning.
        homeostasis: how much a neuron's excitability changes with how often it fires; 0 for none.
        The others are those of `Hebbian`; the parts are "blocks.1", "blocks.2", ... and "head".
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
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
        plus: float = 1.0,
        minus: float = 0.5,
        tau_plus: float = 1.0,
        tau_minus: float = 1.0,
        mu: float = 1.0,
        w_max: float = 1.0,
        normalise: bool = True,
        compete: bool = True,
        homeostasis: float = 0.05,
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        if min(plus, minus, mu, homeostasis) < 0 or min(tau_plus, tau_minus, w_max) <= 0:
            raise UsageError(
                f"STDP(plus={plus}, minus={minus}, mu={mu}, homeostasis={homeostasis}, tau_plus={tau_plus}, "
                f"tau_minus={tau_minus}, w_max={w_max}): the first four must not be negative, the others positive"
            )
        super().__init__(net, problem, settle=settle, **options)
        self.plus, self.minus, self.mu, self.w_max = plus, minus, mu, w_max
        self.tau_plus, self.tau_minus = tau_plus, tau_minus
        self.normalise, self.compete, self.homeostasis = normalise, compete, homeostasis

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its readout learns classes; choose another rule for a regression"
        if nets.output_layer(net) is not None:
            return "it brings its own readout, and an output block would learn features; build the net without classes"
        spiking = [i for i, block in enumerate(net) if any(True for _ in block.parameters())]
        if not spiking:
            return "it needs blocks of spiking neurons (build the net with altprop.nets.spike_coded)"
        for i in spiking:
            block = net[i]
            neurons = isinstance(block, nets.Block) and isinstance(block.activation, nets.LeakyIntegrateAndFire)
            if not neurons or not isinstance(nets.affine(block), nn.Linear) or block.pool is not None:
                return (
                    f"block {i} is not a linear layer with leaky integrate-and-fire neurons, and this rule learns from "
                    "their spikes (build the net with altprop.nets.spike_coded)"
                )
        return unfit(net, problem, spiking)

    def adapt(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch ..."], rate: float
    ) -> None:
        post = self.fire(i, u)
        before = layer.weight.clamp(0.0, self.w_max).sum(1, keepdim=True)
        layer.weight.grad = self.pairs(layer.weight, x, post).mul_(-rate)
        self.update(f"blocks.{i}")
        weight = layer.weight.clamp(0.0, self.w_max)
        if self.normalise:
            sums = weight.sum(1, keepdim=True)
            weight = torch.where(sums > 0, weight * (before / sums), weight).clamp_max_(self.w_max)
        self.assign(layer.weight, weight)
        if self.homeostasis and layer.bias is not None and bool(post.any()):
            often = post.mean((0, 1))
            size = self.homeostasis * u.std(2, correction=0).mean()
            self.assign(layer.bias, layer.bias + rate * size * (1.0 - often / often.mean()))

    def fire(self, i: int, u: Spikes) -> Spikes:
        """The spikes of block i's neurons from the sums u, as they are while it learns."""
        block = self.net[i]
        assert isinstance(block, nets.Block) and isinstance(block.activation, nets.LeakyIntegrateAndFire)
        drive: Tensor = u if block.norm is None else block.norm(u)
        if not self.compete:
            spikes: Tensor = block.activation(drive)
            return spikes
        return winners(drive, block.activation.decay, block.activation.threshold)

    def pairs(
        self,
        w: Float[Tensor, "units inputs"],
        pre: Float[Tensor, "batch time inputs"],
        post: Float[Tensor, "batch time units"],
    ) -> Float[Tensor, "units inputs"]:
        """What all pairs of spikes change, averaged over batch and time."""
        earlier = trace(pre, self.tau_plus)
        later = trace(post, self.tau_minus) - post
        n = pre.shape[0] * pre.shape[1]
        gain = post.flatten(0, 1).T @ earlier.flatten(0, 1) / n
        loss = later.flatten(0, 1).T @ pre.flatten(0, 1) / n
        up = (self.w_max - w).clamp_min(0.0) ** self.mu
        return self.plus * up * gain - self.minus * w.clamp_min(0.0) ** self.mu * loss


def unfit(net: nn.Sequential, problem: Problem, spiking: Sequence[int]) -> str | None:
    """Why samples do not go through the net, or do not meet these blocks as spikes over time, in words."""
    if None in problem.input_shape:
        return None
    sizes = passage(net, problem)
    if isinstance(sizes, str):
        return sizes
    for i in spiking:
        if len(sizes[i]) != 2:
            return f"the linear layer of block {i} sees {sizes[i]} for a sample, and not spikes over time"
    return None


def trace(spikes: Spikes, tau: float) -> Spikes:
    """xbar(t) = xbar(t-1) exp(-1 / tau) + s(t)."""
    found, now = [], torch.zeros_like(spikes[:, 0])
    for s in spikes.unbind(1):
        now = now * math.exp(-1.0 / tau) + s
        found.append(now)
    return torch.stack(found, 1)


def winners(drive: Spikes, decay: float, threshold: float) -> Spikes:
    """Spikes of leaky integrate-and-fire neurons of which only the one with the highest voltage may fire; its spike
    sets the voltages of all to zero."""
    v, found = torch.zeros_like(drive[:, 0]), []
    for u in drive.unbind(1):
        v = decay * v + u
        highest, best = v.max(1, keepdim=True)
        fired = (highest >= threshold).to(v)
        found.append(torch.zeros_like(v).scatter_(1, best, fired))
        v = v * (1.0 - fired)
    return torch.stack(found, 1)
