"""Kolen-Pollack: feedback weights take the same steps as the forward ones and decay as they do, and so become them.

Kolen & Pollack 1994 (doi 10.1109/ICNN.1994.374486); as a rule for deep nets Akrout et al. 2019 (arXiv 1904.05391). With
layers a_l = W_l h_{l-1}, outputs h_l = f_l(a_l), the error e = dL/da_L and B_l in the shape of W_l:

    delta_L = e,    delta_l = f_l'(a_l) * (B_{l+1}^T delta_{l+1}),    G_l = delta_l h_{l-1}^T
    W_l <- (1 - decay) (W_l - step(G_l)),    B_l <- (1 - decay) (B_l - step(G_l))

What a synapse of B_l needs for its step, the activity below and the error above, stands at its own two ends. W_l - B_l
shrinks by (1 - decay) in every step, to rounding, whatever the steps are, as long as both optimizers work weight by
weight and are alike.

Departures from the papers:
1. Any element-wise optimizer in the place of gradient descent. The decay is the rule's own, beside the step and not in
   its gradient, so that momentum or Adam's denominators are the same for W_l and B_l. It follows the schedule.
2. Only weights that have feedback weights decay; the first layer's do not, nor do biases.
3. B_l starts as it does in feedback alignment, `scale` times as large as W_l.
"""

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.ways import random_like


class KolenPollack(Chain):
    """Learned symmetric feedback (Kolen & Pollack 1994, Akrout et al. 2019) for linear and convolutional blocks.

    The feedback is the part "feedback"; where optimizers are given part by part, give it the blocks' own. No block
    reads the weights of a later one again, and that is all that the claim of no update lock says: the error still comes
    down block after block, and a block waits for it.

    Arguments:
        decay: the share of W_l and B_l that is lost in each step, times the schedule.
        scale: B_l starts normal, with `scale` times the root mean square of W_l.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=False,
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
        decay: float = 1e-3,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"KolenPollack(decay={decay}): a share of the weights, at least 0 and below 1, is lost")
        self.decay = decay
        self.feedback = nn.ParameterDict({str(i): self._beside(self.layer(i).weight, scale) for i in self.above})
        self.add_part("feedback", self.feedback)

    def _beside(self, weight: Tensor, scale: float) -> nn.Parameter:
        """B learns only where W does: beside a frozen one it could not come nearer."""
        return nn.Parameter(random_like(weight, scale, self.generator), requires_grad=weight.requires_grad)

    def back(self, block: int) -> Float[Tensor, "outputs inputs ..."]:
        return self.feedback.get_parameter(str(block)).detach()  # its gradient is the weight's, and not computed twice

    def teach_feedback(self) -> None:
        for i in self.above:
            gradient = self.layer(i).weight.grad
            if gradient is not None:
                self.feedback.get_parameter(str(i)).grad = gradient.clone()  # hooks may clip one in place

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        metrics = super().learn(x, y)
        factor = 1.0 if self.schedule is None else self.schedule(self.progress)
        for i in self.above:
            if self.layer(i).weight.requires_grad:
                for p in (self.layer(i).weight, self.feedback.get_parameter(str(i))):
                    self.assign(p, p.detach() * (1.0 - self.decay * factor))
        return metrics
