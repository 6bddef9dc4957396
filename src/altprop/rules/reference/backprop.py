"""Backprop: the exact gradient of the cross-entropy, from the output back through all blocks; the baseline.

Rumelhart, Hinton & Williams 1986 (doi 10.1038/323533a0). With blocks h_l = F_l(h_{l-1}) and loss
L = CE(h_L, y) (half the squared error for regression):

    delta_L = dL/dh_L,    delta_{l-1} = J_l^T delta_l,    dW_l = (dF_l/dW_l)^T delta_l

Departures from the paper: 1. cross-entropy and Adam instead of squared error and gradient descent.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Claims, Metrics, Problem, Rule


class Backprop(Rule):
    """Backpropagation of errors, the honest baseline.

    Frozen blocks (`requires_grad` off) are left alone, so a readout on random features is Backprop too.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="backward",
        differentiable=True,
        memory="grows",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )
    ties = True

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        output = nets.output_layer(net)
        if output is None or output.out_features != problem.outputs:
            return f"it needs an output block: build the net with classes={problem.outputs}"
        return None

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        scores = self.net(x)
        if self.problem.kind == "classification":
            loss = nn.functional.cross_entropy(scores, y)
        else:
            loss = 0.5 * (scores - y).square().sum(1).mean()
        loss.backward()
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": loss.detach()}
