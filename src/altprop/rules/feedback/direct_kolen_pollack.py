"""Direct Kolen-Pollack: direct feedback alignment whose feedback weights learn, as an output layer's would.

Webster, Choi & Ahn 2021, "Learning the connections in direct feedback alignment" (OpenReview zgGmAx9ZcY). With blocks
h_l = F_l(h_{l-1}, W_l), scores h_L, the error e = dL/dh_L and feedback B_l from the outputs to the block's units:

    delta_l = B_l^T e  in the place of dL/dh_l,    dW_l = (dF_l/dW_l)^T delta_l,    output block: delta_L = e
    B_l <- (1 - decay) (B_l - step(e h_l^T))

The step of B_l is that of an output layer which would read block l. For the block before the output, that layer is
there: B_l takes its steps and comes to be its weights, W_L - B_l shrinking by (1 - decay) in every step.

Departures from the paper:
1. Any element-wise optimizer. The decay is the rule's own, beside the step; it follows the schedule, and is that of the
   feedback and of the output weights, where the paper lets all weights decay.
2. B_l reaches the output of a whole block, behind its activation and pooling, so that the rule holds for any block.
3. B_l starts normal with standard deviation scale / sqrt(units of the block's output).
"""

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.feedback.direct import waiting
from altprop.rules.losses import output_error, output_missing
from altprop.rules.random_feedback import feed_back, feedback_to_blocks


class DirectKolenPollack(Rule):
    """Learned direct feedback (Webster, Choi & Ahn 2021) for blocks of any kind: linear, convolutional, a user's own.

    Only a block's inside must have a derivative; a block without parameters needs none. The feedback is the part
    "feedback"; where optimizers are given part by part, give it the output block's own.

    Arguments:
        decay: the share of the feedback, and of the output weights, that is lost in each step, times the schedule.
        scale: the feedback B_l (outputs, *shape of the block's output) starts as N(0, scale^2 / units of that output).
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
        decay: float = 1e-3,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"DirectKolenPollack(decay={decay}): a share, at least 0 and below 1, is lost")
        self.decay = decay
        found = feedback_to_blocks(self, scale)
        self.feedback = nn.ParameterDict({name.removeprefix("feedback_"): nn.Parameter(b) for name, b in found.items()})
        self.add_part("feedback", self.feedback)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem)

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        scores, blocks = waiting(self, x)
        loss, e = output_error(scores, y, self.problem.kind)
        e.div_(len(e))
        for i in sorted(blocks):
            h, delta = blocks.pop(i), e
            if str(i) in self.feedback:
                b = self.feedback[str(i)]
                delta = feed_back(e, b)
                b.grad = (e.t() @ h.detach().flatten(1)).view_as(b)
            h.backward(delta)
            self.update(f"blocks.{i}")
        if "feedback" in self.optimizers:
            self.update("feedback")
            self._forget()
        return {"loss": loss}

    def _forget(self) -> None:
        factor = 1.0 if self.schedule is None else self.schedule(self.progress)
        output = nets.output_layer(self.net)
        assert output is not None
        for p in (*self.feedback.values(), output.weight):
            if p.requires_grad:
                self.assign(p, p * (1.0 - self.decay * factor))
