"""Error forward propagation: the output's error loops back to the front, and goes forward again by the same weights.

Kohan, Rietman & Siegelmann 2018 (arXiv 1808.03357). With layers z_l = W_l h_{l-1}, activities a_l = f(z_l), outputs
h_l of the blocks (a_l, pooled), scores h_L, the error e = softmax(h_L) - onehot(y) and a fixed random loop B from the
output to the layer that receives the input:

    first turn:   z_1 = W_1 x,          a_l
    second turn:  z'_1 = z_1 - B e,     a'_l                            with the same weights
    dW_l = (a_l - a'_l) h_{l-1}^T,      output layer: dW_L = e h_{L-1}^T

The differences stand in the place of dL/dz_l: a layer learns to answer as it did when the error had come around. In the
first layer they are the feedback of direct feedback alignment, and each further layer's are what the forward weights
make of them, so that there is one way back for all layers. No activation and no later block is differentiated.

Departures from the paper:
1. The paper's nets are recurrent. Here the net is feedforward: the error goes around once, predictions have no loop.
2. The update is ours. It follows what the authors say of the method (outputs loop to the receiving layer, forward
   weights carry the error, learning is local) and not their equations, with which it has not been compared: a layer
   compares its two activities, and the input's side is the first turn's.
3. Cross-entropy (or squared error), any optimizer, layers of any kind. B is normal with standard deviation
   scale / sqrt(units of the receiving layer).
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only.modulation import driven, excited, pooled, refusal
from altprop.rules.losses import output_error
from altprop.rules.random_feedback import feed_back, random_feedback


class ErrorForward(Rule):
    """Error forward propagation (Kohan, Rietman & Siegelmann 2018) for linear, convolutional and local layers.

    Between blocks that learn may stand any block without trainable parameters.

    Arguments:
        scale: the loop B (outputs, *shape of z_1) is N(0, scale^2 / units of the receiving layer).
        The others are those of `Rule`.

    Attributes:
        entry: the place of the block that receives the input and the loop: the first one that learns.
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
        self, net: nn.Sequential, problem: Problem | None = None, *, scale: float = 1.0, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        self.entry = next(i for i in range(len(net)) if f"blocks.{i}" in self.optimizers)
        self.register_buffer("loop", self._random_loop(scale))

    def _random_loop(self, scale: float) -> Float[Tensor, "outputs ..."]:
        receiving = nets.affine(self.net[self.entry])
        assert receiving is not None
        way = nn.Sequential(*list(self.net)[: self.entry], receiving)
        shape = nets.shapes(way, self.problem.input_shape)[-1]
        b = random_feedback(self.problem.outputs, shape, scale, self.generator)
        return b.to(next(self.net.parameters()))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := refusal(net, problem)) is not None:
            return reason
        if not any(p.requires_grad for p in net[:-1].parameters()):
            return "it needs a block with trainable parameters before the output block (give the net a hidden width)"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        scores, received, waiting = self._first_turn(x)
        loss, e = output_error(scores, y, self.problem.kind)
        last = len(self.net) - 1
        h = received.sub_(feed_back(e, self.get_buffer("loop")))  # the receiving layer needs no second product
        for i in range(self.entry, last):
            block = self.net[i]
            a = excited(block, h if i == self.entry else driven(block, h))
            h = pooled(block, a)
            if i in waiting:
                drive, before = waiting.pop(i)
                self._descend(i, drive, before - a)
        if last in waiting:
            self._descend(last, waiting.pop(last)[0], e)
        return {"loss": loss}

    def _first_turn(self, x: Float[Tensor, "batch ..."]) -> tuple[Tensor, Tensor, dict[int, tuple[Tensor, Tensor]]]:
        """The scores; what drives the receiving layer; and (z_l, a_l) of each block that learns, z_l with its graph."""
        waiting = {}
        h = x
        for i, block in enumerate(self.net):
            with torch.enable_grad():
                z = driven(block, h)
            if i == self.entry:
                received = z.detach().clone()  # activations may work in place
            a = excited(block, z.detach())
            if f"blocks.{i}" in self.optimizers:
                waiting[i] = z, a
            h = pooled(block, a)
        return h, received, waiting

    def _descend(self, i: int, z: Float[Tensor, "batch ..."], difference: Float[Tensor, "batch ..."]) -> None:
        """Layer i learns from the difference, which stands in the place of the derivative by its drive z."""
        z.backward(difference.div_(len(z)))
        self.update(f"blocks.{i}")
