"""Dendritic microcircuits: what interneurons do not cancel of the feedback to a neuron's apical dendrite is its error.

Sacramento, Ponte Costa, Bengio & Senn 2018 (NeurIPS, arXiv 1810.11393), at the steady state, which latent equilibrium
(Haider et al. 2021, NeurIPS, arXiv 2110.14549) keeps the cells in without waiting. A pyramidal cell of layer l has a
basal dendrite, an apical one and a soma; layer l also has an interneuron for every cell of layer l + 1:

    basal     v_l = W_l r_{l-1} + b_l                           r_l = f_l(u_l), r_0 = x
    apical    a_l = D_l r_{l+1} - M_l f_{l+1}(i_l)
    soma      u_l = v_l + a_l       output: u_L = (1 - k) v_L + k target       (k: what the target conducts)
    interneuron    j_l = V_l r_l + c_l,   i_l = (1 - k) j_l + k u_{l+1}

    dW_l = -(f_l(u_l) - f_l(v_l)) r_{l-1}^T / k          the cell learns to fire as its basal dendrite says
    dV_l = -(f_{l+1}(i_l) - f_{l+1}(j_l)) r_l^T / k      the interneuron learns to say what the layer above says
    dM_l = -a_l f_{l+1}(i_l)^T / k                       the interneuron learns to silence the apical dendrite

Where V_l = W_{l+1} and M_l = D_l ("self-predicting"), a_l is zero without a target, and with a weak one a_l is k times
backprop's delta with D_l for W_{l+1}^T, up to O(k). The way down, D_l, is fixed.

Departures from the papers:
1. Conductances are taken into the weights, but for the target's share k, which is the same for output and interneurons.
2. For classes the target potential is v_L - e, with v_L of the first pass and e = softmax(v_L) - onehot.
3. The steady state is sought by sweeps from the first pass: cells from the output down, then basal dendrites up.
4. Everything is divided by k, so that rates do not depend on it; the net predicts by its first pass.
5. `down="transposed"`: D_l is W_{l+1}^T, whatever W_{l+1} becomes; `plastic=False`: V_l and M_l are W_{l+1} and D_l.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import linear

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_error, output_missing


class DendriticMicrocircuit(Rule):
    """Dendritic microcircuits (Sacramento et al. 2018) at their steady state, for linear layers.

    Arguments:
        nudge: k, the target's share of the conductance at the output and of layer l + 1's at the interneurons of l.
        sweeps: towards the steady state.
        down: D_l, "random" and fixed (uniform, as large as W_{l+1} at its start), or "transposed".
        plastic: whether V_l ("interneurons.l") and M_l ("lateral.l") are weights that learn by their own rules.
        start: of plastic V_l and M_l, "self-predicting" or "random".
        The others are those of `Rule`.

    Metrics: "loss"; "residual", the mean change of a potential in the last sweep, in the layer where it is the largest;
    "apical", the mean size of an apical potential.
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
        nudge: float = 0.1,
        sweeps: int = 2,
        down: str = "random",
        plastic: bool = True,
        start: str = "self-predicting",
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0.0 < nudge < 1.0 or sweeps < 1:
            raise UsageError(
                f"DendriticMicrocircuit(nudge={nudge}, sweeps={sweeps}): nudge must lie between 0 and 1, and sweeps be "
                "at least 1"
            )
        if down not in ("random", "transposed") or start not in ("self-predicting", "random"):
            raise UsageError(
                f"DendriticMicrocircuit(down={down!r}, start={start!r}): down is 'random' or 'transposed', start is "
                "'self-predicting' or 'random'"
            )
        self.nudge, self.sweeps, self.down, self.plastic = nudge, sweeps, down, plastic
        above = [_layer(block) for block in list(net)[1:]]
        for i, layer in enumerate(above):
            if down == "random":
                self.register_buffer(f"down_{i}", self._like(layer).T.contiguous())
        if plastic:
            self.interneurons, self.lateral = nn.ModuleList(), nn.ModuleList()
            for i, layer in enumerate(above):
                self._grow(i, layer, random=start == "random")
        elif down == "transposed":
            self.claims = replace(self.claims, training_only=False)

    def _like(self, layer: nn.Linear) -> Float[Tensor, "outputs inputs"]:
        """Random weights in the shape of the layer's, uniform, of their mean square."""
        weight = layer.weight.detach()
        bound = float(weight.square().mean().mul(3).sqrt())
        return torch.empty(weight.shape).uniform_(-bound, bound, generator=self.generator).to(weight)

    def _grow(self, i: int, layer: nn.Linear, *, random: bool) -> None:
        """The interneurons of hidden layer i, which stand for the cells of `layer` above, and their synapses back."""
        cells = copy.deepcopy(layer).requires_grad_()
        back = self.way_down(i)
        if random:
            self.assign(cells.weight, self._like(layer))
            back = self._like(layer).T
        self.interneurons.append(cells)
        self.lateral.append(nn.ParameterList([back.clone(memory_format=torch.contiguous_format)]))
        self.add_part(f"interneurons.{i}", cells)
        self.add_part(f"lateral.{i}", self.lateral[i])

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := output_missing(net, problem)) is not None:
            return reason
        in_time = (nets.LeakyIntegrateAndFire, nets.LeakyRate, nets.Cell)
        if any(isinstance(m, (*in_time, nets.Sign)) for m in net.modules()):
            return (
                "a cell's rate must change a little with its potential; steps do not, nor neurons that live in time: "
                "take relu, tanh or sigmoid"
            )
        for i, block in enumerate(net):
            extra = isinstance(block, nets.Block) and (block.norm is not None or block.pool is not None)
            if extra or not isinstance(nets.affine(block), nn.Linear):
                return (
                    f"block {i} must be a linear layer and an activation, and nothing else, for its cells to have "
                    "interneurons; build the net with nets.mlp and no norm, or cut a model with altprop.blocks(model)"
                )
        return None

    def way_down(self, i: int) -> Float[Tensor, "units above"]:
        """D of hidden layer i."""
        if self.down == "transposed":
            return _layer(self.net[i + 1]).weight.detach().T
        return self.get_buffer(f"down_{i}")

    def circuit(self, i: int) -> tuple[nn.Linear, Float[Tensor, "units above"]]:
        """V (with c) and M of hidden layer i."""
        if not self.plastic:
            return _layer(self.net[i + 1]), self.way_down(i)
        cells, back = self.interneurons[i], next(self.lateral[i].parameters())
        assert isinstance(cells, nn.Linear)
        return cells, back

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch inputs"], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        now = Potentials(self.net, x)
        loss, e = output_error(now.basal[-1], y, self.problem.kind)
        target = now.basal[-1] - e
        for sweep in range(self.sweeps):
            if sweep > 0:
                now.climb()
            residual = self._settle(now, target)
        scale = self.nudge * len(x)
        for i in range(len(self.net)):
            if f"blocks.{i}" in self.optimizers:
                _descend(_layer(self.net[i]), (now.fire(i, now.basal[i]) - now.rates[i + 1]).div_(scale), now.rates[i])
                self.update(f"blocks.{i}")
        for i in range(len(self.net) - 1 if self.plastic else 0):
            self._learn_circuit(i, now, scale)
        apical = torch.stack([a.abs().mean() for a in now.apical]).mean() if now.apical else torch.zeros_like(loss)
        return {"loss": loss, "residual": residual, "apical": apical}

    def _settle(self, now: "Potentials", target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
        """Somata and interneurons from the output down; returns the largest mean change of a soma's potential."""
        residual = now.soma(len(self.net) - 1, torch.lerp(now.basal[-1], target, self.nudge))
        for i in reversed(range(len(self.net) - 1)):
            cells, back = self.circuit(i)
            now.heard[i] = cells(now.rates[i + 1])
            now.said[i] = now.fire(i + 1, torch.lerp(now.heard[i], now.potentials[i + 1], self.nudge))
            now.apical[i] = linear(now.rates[i + 2], self.way_down(i)) - linear(now.said[i], back)
            residual = torch.maximum(residual, now.soma(i, now.basal[i] + now.apical[i]))
        return residual

    def _learn_circuit(self, i: int, now: "Potentials", scale: float) -> None:
        cells, back = self.circuit(i)
        _descend(cells, (now.fire(i + 1, now.heard[i]) - now.said[i]).div_(scale), now.rates[i + 1])
        self.update(f"interneurons.{i}")
        back.grad = now.apical[i].T @ now.said[i] / -scale
        self.update(f"lateral.{i}")


class Potentials:
    """All potentials of a batch at one moment, after a first pass without apical ones.

    Of layer i: basal[i], potentials[i] (of the soma) and its rate rates[i + 1] (rates[0] is the input); apical[i], and
    of its interneurons heard[i] (their dendrites' potential) and said[i] (their rate).
    """

    def __init__(self, net: nn.Sequential, x: Float[Tensor, "batch inputs"]) -> None:
        self.net, self.rates = net, [x]
        self.basal: list[Tensor] = []
        for i, block in enumerate(net):
            self.basal.append(_layer(block)(self.rates[-1]))
            self.rates.append(self.fire(i, self.basal[-1]))
        self.potentials = list(self.basal)
        self.apical, self.heard, self.said = ([torch.empty(0)] * (len(net) - 1) for _ in range(3))

    def fire(self, i: int, u: Float[Tensor, "batch units"]) -> Float[Tensor, "batch units"]:
        """f_i(u)."""
        block = self.net[i]
        f = block.activation if isinstance(block, nets.Block) else None
        rate: Tensor = u if f is None else f(u)
        return rate

    def soma(self, i: int, u: Float[Tensor, "batch units"]) -> Float[Tensor, ""]:
        """Set the somata of layer i; returns the mean change of their potential."""
        change = (u - self.potentials[i]).abs_().mean()
        self.potentials[i], self.rates[i + 1] = u, self.fire(i, u)
        return change

    def climb(self) -> None:
        """The basal dendrites follow the rates below; the input is clamped."""
        for i in range(1, len(self.net)):
            self.basal[i] = _layer(self.net[i])(self.rates[i])


def _layer(block: nn.Module) -> nn.Linear:
    layer = nets.affine(block)
    assert isinstance(layer, nn.Linear)
    return layer


def _descend(layer: nn.Linear, delta: Float[Tensor, "batch outputs"], r: Float[Tensor, "batch inputs"]) -> None:
    """Fill `.grad` of the layer: delta r^T, summed over the batch."""
    if layer.weight.requires_grad:
        layer.weight.grad = delta.T @ r
    if layer.bias is not None and layer.bias.requires_grad:
        layer.bias.grad = delta.sum(0)
