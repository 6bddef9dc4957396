"""PEPITA: the error of a first pass is added to the input, and each layer learns from what a second pass changes.

Dellaferrera & Kreiman 2022 (ICML, arXiv 2201.11665). With layers z_l = W_l h_{l-1}, activities a_l = f(z_l), outputs
h_l of the blocks (a_l, pooled), scores h_L, the error e = softmax(h_L) - onehot(y) and a fixed random F:

    standard pass:   h_0 = x,        a_l
    modulated pass:  h~_0 = x + F e,  a~_l                              with the same weights
    dW_l = (a_l - a~_l) h~_{l-1}^T,   output layer: dW_L = e h~_{L-1}^T

The differences stand in the place of dL/dz_l; no activation and no later block is differentiated.

MEMPEPITA (Pau & Aymone 2023, doi 10.1109/COINS57856.2023.10189239): the standard pass keeps nothing, and runs again
beside the modulated one. The updates are the same; memory is flat in depth, at the price of a third pass.

Departures from the paper:
1. e is that of the standard pass in every layer. (For its perceptrons the authors' code teaches the output layer by the
   error of the modulated pass, which needs one more product.)
2. Biases learn too, by db_l = a_l - a~_l; the paper has none. No dropout.
3. A layer may have a norm before its activation, and the net be one for regression (e = h_L - y).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule
from altprop.rules.forward_only.modulation import driven, excited, pooled, refusal
from altprop.rules.losses import output_error
from altprop.rules.random_feedback import feed_back

SGD: OptimizerSpec = partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True)


class PEPITA(Rule):
    """PEPITA and MEMPEPITA (Dellaferrera & Kreiman 2022) for linear, convolutional and local layers.

    Between blocks that learn may stand any block without trainable parameters.

    Arguments:
        scale: F (outputs, *input_shape) is uniform within scale * sqrt(6 / values of an input).
        recompute: MEMPEPITA: the standard pass is computed again beside the modulated one, and not kept.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=False,
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
        scale: float = 0.05,
        recompute: bool = False,
        optimizer: OptimizerSpec = SGD,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        if recompute:
            self.claims = replace(self.claims, memory="flat")
        self.recompute = recompute
        self.register_buffer("feedback", self._random_feedback(scale))

    def _random_feedback(self, scale: float) -> Float[Tensor, "outputs ..."]:
        shape = self.problem.input_shape
        if None in shape:
            raise UsageError(
                f"PEPITA: the input shape {shape} leaves sizes open, and the error needs a way to each value of the "
                "input; give problem=Problem(input_shape, outputs)"
            )
        f = torch.empty(self.problem.outputs, *(int(n or 0) for n in shape))
        bound = scale * (6.0 / f[0].numel()) ** 0.5
        return f.uniform_(-bound, bound, generator=self.generator).to(next(self.net.parameters()))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        scores, standard = self._standard(x)
        loss, e = output_error(scores, y, self.problem.kind)
        h = x + feed_back(e, self.get_buffer("feedback"))
        for i, a in enumerate(standard):
            h = self._descend(i, a, h)
        self._descend_output(e, h)
        return {"loss": loss}

    def _activities(self, x: Float[Tensor, "batch ..."]) -> Iterator[Float[Tensor, "batch ..."]]:
        """a_l of one block after another, each computed when it is asked for."""
        for block in self.net:
            a = excited(block, driven(block, x))
            yield a
            x = pooled(block, a)

    def _standard(self, x: Float[Tensor, "batch ..."]) -> tuple[Tensor, Iterator[Tensor]]:
        """The scores, and a_l of the hidden blocks: kept, or to be computed again while the second pass goes on."""
        if self.recompute:
            (scores,) = deque(self._activities(x), maxlen=1)
            return scores, islice(self._activities(x), len(self.net) - 1)
        *kept, scores = self._activities(x)
        return scores, iter(kept)

    def _descend(self, i: int, a: Float[Tensor, "batch ..."], h: Float[Tensor, "batch ..."]) -> Tensor:
        """Block i learns from what the modulated input h changes in its activity; returns its output."""
        block = self.net[i]
        with torch.enable_grad():
            z = driven(block, h)
        b = excited(block, z.detach())
        if f"blocks.{i}" in self.optimizers:
            z.backward((a - b).div_(len(b) * places(block, b)))
            self.update(f"blocks.{i}")
        return pooled(block, b)

    def _descend_output(self, e: Float[Tensor, "batch outputs"], h: Float[Tensor, "batch width"]) -> None:
        """The output layer needs no second scores: its update is e h^T."""
        last = len(self.net) - 1
        layer = nets.output_layer(self.net)
        assert layer is not None
        if layer.weight.requires_grad:
            layer.weight.grad = e.t() @ h / len(e)
        if layer.bias is not None and layer.bias.requires_grad:
            layer.bias.grad = e.mean(0)
        if f"blocks.{last}" in self.optimizers:
            self.update(f"blocks.{last}")


def places(block: nn.Module, a: Float[Tensor, "batch ..."]) -> int:
    """How many places share a weight: the authors average the update of a convolution over them."""
    return a[0, 0].numel() if isinstance(nets.affine(block), nn.Conv2d) else 1
