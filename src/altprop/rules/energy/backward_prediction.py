"""Backward prediction: learned backward layers predict how a layer moved from how the one above did, and pass the error
down.

After Downing 2023, "Gradient Expectations: Structure, Origins, and Synthesis of Predictive Neural Networks" (MIT
Press), where networks learn what to expect of the layer below, and errors travel through the same backward connections.
Forward blocks x_l = f(W_l x_{l-1} + b_l), backward matrices B_l, scores x_L. Of each batch a few sub-steps are made,
and in each, from the output down:

    e_L = softmax(x_L) - onehot(y)
    delta_l = f'_l * e_l,   e_{l-1} = B_l delta_l      the backward layer passes the error down
    dW_l = delta_l x_{l-1}^T                           the forward block learns from the error at its own output
    dB_l = (B_l c - n) c^T,   c = (F_l(x_{l-1} + noise * n) - x_l) / noise,   n normal

averaged over the batch; f'_l is the slope at x_l. The last line is a regression: shaken by n, the block answers with
the change c, and its backward layer learns to tell n from it. Nothing copies W_l, and B_l comes to lie near W_l^T.

Departures from what is implemented under the name of this idea elsewhere:
1. The error passed down is B (f' * e), an error, instead of f(B e) + noise + x_{l-1}, a residual without slopes.
2. The backward layer predicts the noise in the state below from the change above, instead of the state itself. (That
   gave B_l no more than a faint likeness to W_l^T.)
3. The output is linear, with cross-entropy (squared error in a regression), instead of a tanh for targets 0 and 1.
4. Forward layers have biases, and learn by Adam instead of gradient descent, as backward ones do.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule
from altprop.rules.energy.linear_blocks import before_activation, fill_gradients, layer_of, refusal
from altprop.rules.losses import output_error

ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=5e-4, fused=True)


class BackwardPrediction(Rule):
    """Errors passed down by backward layers that learn to predict the layer below.

    For nets of linear blocks without norms that end in an output block.

    Arguments:
        substeps: how often all layers learn from each batch.
        noise: standard deviation of what shakes the states that backward layers learn to predict.
        The others are those of `Rule`; the parts are "blocks.0", ... and "backward.1", ... (a backward layer for each
        block but the first, named after the block that it leads back through). With a rate of 0 backward layers stay
        random, as in feedback alignment.

    Metrics: "loss"; "unexplained", which share of the noise backward layers did not tell (means over the batch, in the
    first sub-step).
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=True,
        order="backward",
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
        substeps: int = 4,
        noise: float = 0.1,
        optimizer: OptimizerSpec = ADAM,
        **options: Any,
    ) -> None:
        if substeps < 1 or not 0.0 < noise < float("inf"):
            raise UsageError(
                f"BackwardPrediction(substeps={substeps}, noise={noise}): give at least one sub-step, and noise above 0"
            )
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.substeps, self.noise = substeps, noise
        self.backward_layers = nn.ModuleList(back(layer_of(block), self.generator) for block in list(net)[1:])
        for i, layer in enumerate(self.backward_layers, 1):
            self.add_part(f"backward.{i}", layer)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch inputs"], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        first, *_ = [self.substep(x, y) for _ in range(self.substeps)]
        return first

    def substep(self, x: Float[Tensor, "batch inputs"], y: Shaped[Tensor, "batch ..."]) -> Metrics:
        """Forward, and from the output down every layer learns."""
        states = [x]
        for block in self.net:
            states.append(block(states[-1]))
        loss, e = output_error(states[-1], y, self.problem.kind)
        unexplained = []
        for i in reversed(range(len(self.net))):
            delta = before_activation(self.net[i], states[i + 1], e)
            if i > 0:
                e = delta @ layer_of(self.backward_layers[i - 1]).weight.T
                unexplained.append(self.expect(i, states[i], states[i + 1]))
            if f"blocks.{i}" in self.optimizers:
                fill_gradients(self.net[i], delta, states[i])
                self.update(f"blocks.{i}")
        return {"loss": loss, "unexplained": torch.stack(unexplained or [torch.zeros_like(loss)]).mean()}

    def expect(
        self, i: int, below: Float[Tensor, "batch inputs"], above: Float[Tensor, "batch outputs"]
    ) -> Float[Tensor, ""]:
        """The backward layer of block i learns to tell the noise in the state below from the change above."""
        layer = self.backward_layers[i - 1]
        n = torch.randn(below.shape, generator=self.generator, device="cpu").to(below)
        change = (self.net[i](below + self.noise * n) - above) / self.noise
        wrong: Tensor = layer(change) - n
        if f"backward.{i}" in self.optimizers:
            fill_gradients(layer, wrong, change)
            self.update(f"backward.{i}")
        return wrong.square().sum() / n.square().sum()


def back(layer: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """A linear layer without bias from the outputs of the layer to its inputs."""
    return nets.linear(layer.out_features, layer.in_features, "lecun", generator, bias=False).to(layer.weight)
