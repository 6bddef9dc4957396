"""Eligibility propagation: recurrent spiking neurons learn from traces and a broadcast error, forward in time.

Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein & Maass 2020 (Nat. Commun. 11:3625, doi
10.1038/s41467-020-17236-y). A neuron j of a recurrent block has

    v_t = decay v_{t-1} + W x_t + b + R z_{t-1} - threshold z_{t-1},      z_t = 1 where v_t >= threshold
    eps_t = decay eps_{t-1} + (x_t, z_{t-1}, 1)                     filtered presynaptic activity
    h_t = gamma max(0, 1 - |v_t - threshold| / threshold) / threshold     the pseudo-derivative of its spike
    ebar_t = kappa ebar_{t-1} + (1 - kappa) h_t eps_t^T                   eligibility of its synapses

and the readout sees f_t = kappa f_{t-1} + (1 - kappa) z_t, with scores s_t = W_out f_t + b_out at each step:

    e_t = softmax(s_t) - onehot(y),    L_t = B^T e_t,    dW = -rate <L_t ebar_t>,    dW_out = -rate <e_t f_t^T>

with means over batch and time, B fixed and random, or W_out ("symmetric"). Nothing goes back in time: what a synapse
needs of the past lies in its traces, and memory is the same for sequences of any length. Left out of the gradient are
the ways from a spike to later spikes through R; without them ("symmetric", one block) it is that of backpropagation
through time.

With kappa = 0 the batch's mean of L_t h_t eps_t^T is one product a step, and no synapse keeps anything. Otherwise each
synapse keeps ebar for each sample, (batch, units, inputs + units + 1): L_t could be filtered instead only backward in
time.

Departures from the paper:
1. Leaky neurons without adaptive thresholds, refractory time or a delay of the readout; no regularisation of rates.
2. The filter of the readout is the net's, and its gain is 1; Adam. Prediction is by the mean of the scores over time.
3. R has a diagonal: a neuron may see its own last spike.
4. Several blocks in a row (the paper has one): each gets its own signal through a B of its own.
5. Weights are updated after the last step of a sequence, not in each.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.nets.recurrent import sequence
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.hebbian.eligibility import Synapses
from altprop.rules.losses import output_error, output_missing
from altprop.rules.random_feedback import random_feedback

Seen = tuple[Float[Tensor, "batch synapses"], Float[Tensor, "batch units"]]
"""What a block's synapses and its neurons saw in one time step: (x_t, z_{t-1}, 1) and v_t."""
TIMED = (nets.LeakyIntegrateAndFire, nets.LeakyRate, nets.Cell, nets.MeanOverTime)


class EProp(Rule):
    """Eligibility propagation (Bellec et al. 2020): recurrent spiking nets learn from traces and a broadcast error.

    For nets of `altprop.nets.recurrent_spiking` with an output block. Blocks without parameters may stand before the
    recurrent ones, which see the whole input, and between them, which see one time step, (batch, features).

    Arguments:
        feedback: "random", or "symmetric": W_out itself (of one recurrent block only).
        scale: of the random B (outputs, units), N(0, scale^2 / units).
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=False,
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
        feedback: str = "random",
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        if feedback not in ("random", "symmetric"):
            raise UsageError(f"EProp(feedback={feedback!r}): choose 'random' or 'symmetric'")
        super().__init__(net, problem, **options)
        self.recurrent = [i for i, block in enumerate(net) if isinstance(block, nets.RecurrentIntegrateAndFire)]
        self.feedback, self.kappa = feedback, filter_of(net[-2]) or 0.0
        if feedback == "symmetric" and len(self.recurrent) > 1:
            raise UsageError(
                f"EProp(feedback='symmetric'): the output block reads the last of {len(self.recurrent)} recurrent "
                "blocks, so no weights of its own lead to the others; take feedback='random', or one recurrent block"
            )
        for i in self.recurrent if feedback == "random" else ():
            weight = self._block(i).recurrent.weight
            b = random_feedback(self.problem.outputs, [len(weight)], scale, self.generator)
            self.register_buffer(f"feedback_{i}", b.to(weight))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if not any(isinstance(block, nets.RecurrentIntegrateAndFire) for block in net):
            return "it needs recurrent spiking blocks (build the net with altprop.nets.recurrent_spiking)"
        if len(net) < 3 or filter_of(net[-2]) is None:
            return "the block before the output block must be a mean over time (of filtered spikes, or of the spikes)"
        begun = False
        for i, block in enumerate(list(net)[:-2]):
            begun = begun or isinstance(block, nets.RecurrentIntegrateAndFire)
            if isinstance(block, nets.RecurrentIntegrateAndFire):
                continue
            if any(True for _ in block.parameters()):
                return f"block {i} has parameters but is no recurrent spiking block, and this rule knows no other"
            if begun and any(isinstance(m, TIMED) for m in block.modules()):
                return f"block {i} lives in time, and between recurrent blocks it would see one time step alone"
        return output_missing(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        learning = [i for i in self.recurrent if f"blocks.{i}" in self.optimizers]
        synapses = {i: Synapses(self._block(i), len(x), self.kappa) for i in learning}
        output = self._output()
        out = torch.cat([torch.zeros_like(output.weight), torch.zeros_like(output.weight[:, :1])], 1)
        total, steps = x.new_zeros(()), 0
        for scores, f, seen in self._unroll(x):
            loss, e = output_error(scores, y, self.problem.kind)
            total, steps = total + loss, steps + 1
            out.addmm_(e.T, torch.cat([f, torch.ones_like(f[:, :1])], 1))
            for i, memory in synapses.items():
                memory.see(*seen[i])
                memory.learn(self._signal(i, e))
        for i, memory in synapses.items():
            self._write(f"blocks.{i}", memory.layers(), memory.change.div_(len(x) * steps))
        self._write(f"blocks.{len(self.net) - 1}", [output], out.div_(len(x) * steps))
        return {"loss": total / steps}

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        """The mean of the scores over time: what the net gives, but for rounding."""
        scores = [s for s, _, _ in self._unroll(x)]
        return torch.stack(scores).mean(0)

    def _unroll(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, dict[int, Seen]]]:
        """Step by step: the scores, the filtered spikes that the output block sees, and what recurrent blocks saw."""
        first, blocks = self.recurrent[0], list(self.net)
        for block in blocks[:first]:
            x = block(x)
        states = {i: self._block(i).initial(len(x)) for i in self.recurrent}
        f = torch.zeros_like(states[self.recurrent[-1]][1])
        for h in sequence(x).unbind(1):
            seen: dict[int, Seen] = {}
            for i, block in enumerate(blocks[first:-2], first):
                if i not in states:
                    h = block(h)
                    continue
                row = torch.cat([h, states[i][1], torch.ones_like(h[:, :1])], 1)
                states[i] = self._block(i).one(h, states[i])
                seen[i] = row, states[i][0]
                h = states[i][1]
            f = torch.lerp(f, h, 1 - self.kappa)
            yield blocks[-1](f), f, seen

    def _signal(self, i: int, e: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch units"]:
        """The learning signals L of a block's neurons."""
        return e @ (self._output().weight if self.feedback == "symmetric" else self.get_buffer(f"feedback_{i}"))

    def _write(self, part: str, layers: list[nn.Linear], gradient: Float[Tensor, "units synapses"]) -> None:
        """Give each layer its columns, the bias the last one, and update the part."""
        if part not in self.optimizers:
            return
        columns = gradient[:, :-1].split([layer.in_features for layer in layers], 1)
        for layer, own in zip(layers, columns, strict=True):
            if layer.weight.requires_grad:
                layer.weight.grad = own.contiguous()
            if layer.bias is not None and layer.bias.requires_grad:
                layer.bias.grad = gradient[:, -1].contiguous()
        self.update(part)

    def _block(self, i: int) -> nets.RecurrentIntegrateAndFire:
        block = self.net[i]
        assert isinstance(block, nets.RecurrentIntegrateAndFire)
        return block

    def _output(self) -> nn.Linear:
        output = nets.output_layer(self.net)
        assert output is not None
        return output


def filter_of(block: nn.Module) -> float | None:
    """The decay of the spikes' filter in a block that is a mean over time; None for other blocks."""
    if not isinstance(block, nets.Block) or not isinstance(block.pool, nets.MeanOverTime):
        return None
    if block.affine is not None or block.norm is not None:
        return None
    if block.activation is None:
        return 0.0
    if isinstance(block.activation, nets.LeakyRate) and isinstance(block.activation.f, nn.Identity):
        return 1.0 - block.activation.rate
    return None
