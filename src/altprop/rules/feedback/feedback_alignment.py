"""Feedback alignment: the error goes back through fixed random weights instead of the transposed forward ones.

Lillicrap, Cownden, Tweed & Akerman 2016 (doi 10.1038/ncomms13276, arXiv 1411.0247). With layers a_l = W_l h_{l-1},
outputs h_l = f_l(a_l), scores a_L, the error e = dL/da_L and fixed random B_l in the shape of W_l:

    delta_L = e,    delta_l = f_l'(a_l) * (B_{l+1}^T delta_{l+1}),    dW_l = delta_l h_{l-1}^T

Learning turns W_{l+1} towards B_{l+1}, so that what comes down points downhill.

Departures from the paper:
1. B_l is normal with `scale` times the root mean square of the weights that it stands for; the paper draws it uniform,
   within a bound found by search.
2. Convolutions, whose error goes down through the transposed convolution with B_l; norms and pooling are differentiated
   exactly. The paper has perceptrons.
3. Softmax and cross-entropy at the output, with any optimizer; the paper has the squared error and gradient descent.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from altprop.rule import Claims, Problem
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.ways import random_like


class FeedbackAlignment(Chain):
    """Feedback alignment (Lillicrap et al. 2016) for nets of linear and convolutional blocks.

    No block reads the weights of a later one again, and that is all that the claim of no update lock says: the error
    still comes down block after block, and a block waits for it.

    Arguments:
        scale: the feedback B_l (in the shape of W_l) is normal, with `scale` times the root mean square of W_l at the
            start.
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
        self, net: nn.Sequential, problem: Problem | None = None, *, scale: float = 1.0, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        for i in self.above:
            self.register_buffer(f"feedback_{i}", random_like(self.layer(i).weight, scale, self.generator))

    def back(self, block: int) -> Float[Tensor, "outputs inputs ..."]:
        return self.get_buffer(f"feedback_{block}")
