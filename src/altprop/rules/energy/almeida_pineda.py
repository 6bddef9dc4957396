"""Almeida-Pineda: the gradient of a settled net, found by letting an error settle in the same net, run in reverse.

Almeida 1987 (IEEE First International Conference on Neural Networks, "A learning rule for asynchronous perceptrons with
feedback in a combinatorial environment"), Pineda 1987 (doi 10.1103/PhysRevLett.59.2229). States settle at s = F(s), and
the loss is that of the outputs. Its derivatives delta by the sums u (see `hopfield` for them; W acts both ways) settle
at

    delta_l = f'(u_l) (dLoss/ds_l + W_{l+1}^T delta_{l+1} + g W_l delta_{l-1})
    dW_l = delta_l s_{l-1}^T + g s_l delta_{l-1}^T  (no second term at the input),    db_l = delta_l

which is implicit differentiation, exact where both have settled. It is how deep-equilibrium models learn (Bai et al.
2019, arXiv 1909.01377), and `solver="anderson"` is how they settle.

`adjoint="one-step"` is Jacobian-free backpropagation (Fung et al. 2022, arXiv 2103.12803): the derivative of one sweep
alone, from the first layer to the last, with the states of the layers above as they are: no error settles.

Departures from the papers:
1. The net is a row of layers with symmetric weights, the ways down `feedback` times as strong; not all to all.
2. Fixed-point equations instead of small steps; errors settle by the same solver.
3. One step of the net, in JFB, is a sweep in order; were all states to move at once, only the output would learn.
4. `output="cross-entropy"` takes the settled outputs for scores. Adam by default.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.energy.fixed_point import States, relax
from altprop.rules.energy.hopfield import Hopfield, linear, not_linear
from altprop.rules.losses import output_error


class AlmeidaPineda(Hopfield):
    """Recurrent backpropagation on perceptrons with bounded activations.

    Arguments:
        output: the loss of the settled outputs, "squared" or "cross-entropy" (which grows weights until states settle
            slowly).
        adjoint: "settled", or "one-step" for Jacobian-free backpropagation.
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
        output: str = "squared",
        adjoint: str = "settled",
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if output not in ("squared", "cross-entropy") or adjoint not in ("settled", "one-step"):
            raise UsageError(
                f"AlmeidaPineda(output={output!r}, adjoint={adjoint!r}): choose the output 'squared' or "
                "'cross-entropy', and the adjoint 'settled' or 'one-step'"
            )
        if output == "cross-entropy" and self.problem.kind == "regression":
            raise UsageError("AlmeidaPineda(output='cross-entropy') needs classes; for regression use 'squared'")
        self.output, self.adjoint = output, adjoint

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return not_linear(net) or super().supports(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        system = self.system(x)
        free = system.relax(system.feed_forward(), self.solver)
        if self.output == "cross-entropy":
            loss, error = output_error(free.states[-1], y, "classification")
        else:
            loss, error = output_error(free.states[-1], self.target(y, x), "regression")
        slopes = [slope(block, s) for block, s in zip(self.net, free.states, strict=True)]
        move = partial(self._delta, slopes, error)
        start = self._backward_sweep(slopes, error)
        settled = [relax(move, start, self.solver)] if self.adjoint == "settled" else []
        self._learn_from([x, *free.states], settled[0].states if settled else start)
        return {"loss": loss, **self.settling(free, *settled)}

    def _weight(self, i: int) -> Float[Tensor, "outputs inputs"]:
        layer = linear(self.net[i])
        assert layer is not None
        return layer.weight

    def _delta(self, slopes: States, error: Float[Tensor, "batch outputs"], i: int, deltas: States) -> Tensor:
        """The delta that layer i would have with those of its neighbours."""
        pulled = error if i + 1 == len(deltas) else deltas[i + 1] @ self._weight(i + 1)
        if i > 0:
            pulled = torch.addmm(pulled, deltas[i - 1], self._weight(i).T, alpha=self.feedback)
        return pulled * slopes[i]

    def _backward_sweep(self, slopes: States, error: Float[Tensor, "batch outputs"]) -> States:
        """The deltas without feedback, from the output down."""
        deltas = [error * slopes[-1]]
        for i in range(len(slopes) - 1, 0, -1):
            deltas.insert(0, deltas[0] @ self._weight(i) * slopes[i - 1])
        return deltas

    def _learn_from(self, states: States, deltas: States) -> None:
        """states[0] is the input."""
        for i, block in enumerate(self.net):
            layer, delta = linear(block), deltas[i] / len(deltas[i])
            assert layer is not None
            if layer.weight.requires_grad:
                layer.weight.grad = delta.T @ states[i]
                if i > 0:
                    layer.weight.grad.addmm_(states[i + 1].T, deltas[i - 1], alpha=self.feedback / len(delta))
            if layer.bias is not None and layer.bias.requires_grad:
                layer.bias.grad = delta.sum(0)
            if f"blocks.{i}" in self.optimizers:
                self.update(f"blocks.{i}")


def slope(block: nn.Module, s: Float[Tensor, "batch units"]) -> Float[Tensor, "batch units"]:
    """f' where the activation's value is s."""
    f = block.activation if isinstance(block, nets.Block) else None
    if isinstance(f, nn.Tanh):
        return 1 - s * s
    if isinstance(f, nn.Sigmoid):
        return s - s * s
    if isinstance(f, nn.Hardtanh):
        return ((s > f.min_val) & (s < f.max_val)).to(s.dtype)
    return torch.ones_like(s)
