"""Weight mirrors: between steps, layers are fed noise, and feedback weights learn from how they answer it.

Akrout, Wilson, Humphreys, Lillicrap & Tweed 2019 (arXiv 1904.05391). With layers a_l = W_l h_{l-1}, outputs
h_l = f_l(a_l), the error e = dL/da_L and B_l in the shape of W_l, a step is that of feedback alignment:

    delta_L = e,    delta_l = f_l'(a_l) * (B_{l+1}^T delta_{l+1}),    dW_l = delta_l h_{l-1}^T

and after it the net is in mirror mode, where each layer is fed independent noise n of mean 0 and variance 1:

    B_l <- (1 - rate) B_l + rate mean(W_l n n^T)

As E[n n^T] = 1, B_l follows W_l, a running mean over about samples / rate noises.

Departures from the paper:
1. What answers the noise is the layer without its bias and activation (the paper blocks the bias, too); then the mean
   is W_l itself, and B_l needs no renormalisation.
2. rate is both the decay and the gain, so that B_l settles at the size of W_l; the authors' code decays little and
   grows B_l at a rate of its own.
3. No mirroring before the first step: B_l starts as in feedback alignment and forgets that in some 1 / rate steps.
4. For a convolution, a noise is one patch of the input.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.ways import random_like


class WeightMirror(Chain):
    """Feedback alignment with weight mirrors (Akrout et al. 2019) for linear and convolutional blocks.

    What a block takes from later weights has come to it through the noise of earlier steps. No block reads the weights
    of a later one again before it learns, and that is all that the claim of no update lock says: the error still comes
    down block after block, and a block waits for it.

    Arguments:
        samples: noises in each step, for each layer.
        rate: how much of the feedback B_l is forgotten for what they say.
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
        samples: int = 32,
        rate: float = 0.03,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if samples < 1 or not 0.0 < rate <= 1.0:
            raise UsageError(
                f"WeightMirror(samples={samples}, rate={rate}): samples must be at least 1, and rate above 0 and at "
                "most 1"
            )
        self.samples, self.rate = samples, rate
        start = {str(i): random_like(self.layer(i).weight, scale, self.generator) for i in self.above}
        self.feedback = nn.ParameterDict({i: nn.Parameter(b, requires_grad=False) for i, b in start.items()})

    def back(self, block: int) -> Float[Tensor, "outputs inputs ..."]:
        return self.feedback.get_parameter(str(block))

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        metrics = super().learn(x, y)
        for i in self.above:
            self.mirror(i)
        return metrics

    @torch.no_grad()
    def mirror(self, block: int) -> None:
        """Feed a layer noise, and let its feedback weights learn from the answers."""
        weight, b = self.layer(block).weight.flatten(1), self.back(block)
        noise = torch.randn(self.samples, weight.size(1), generator=self.generator).to(weight)
        answers = noise @ weight.t()
        heard = answers.t() @ noise / self.samples
        self.assign(b, torch.lerp(b, heard.view_as(b), self.rate))
