"""Direct feedback alignment: the output's error goes straight to every block through fixed random weights.

Nøkland 2016 (arXiv 1609.01596). With blocks h_l = F_l(h_{l-1}, W_l), scores h_L and the error e = dL/dh_L,
which is softmax(h_L) - onehot(y) for the cross-entropy and h_L - y for half the squared error:

    delta_l = B_l e  in the place of dL/dh_l,    dW_l = (dF_l/dW_l)^T delta_l,    output block: delta_L = e

Nothing travels backward through the net: each block's input is cut off, so a derivative is taken inside one block
at a time, and an earlier block never reads the weights of a later one.

Departures from the paper:
1. Adam instead of RMSprop, and ReLU works as well as the paper's tanh.
2. B_l reaches the output of a whole block, behind its activation and pooling, so that the rule holds for any block
   (for a linear layer and its activation this is the paper's delta_l = (B_l e) * f'(a_l)).
3. B_l is normal with standard deviation scale / sqrt(units of the block's output): what W^T of an output layer has at
   its start. The paper draws it uniform. Weights keep the net's own initialisation; the paper's may start at zero.
"""

from jaxtyping import Float
from torch import Tensor

from altprop.rule import Claims
from altprop.rules.feedback.direct import Direct


class DirectFeedbackAlignment(Direct):
    """Direct feedback alignment (Nøkland 2016) for blocks of any kind: linear, convolutional or a user's own.

    Only a block's inside must have a derivative; a block without parameters needs none.

    Arguments:
        scale: the feedback B_l (classes, *shape of the block's output) is N(0, scale^2 / units of that output).
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

    def told(self, e: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch outputs"]:
        return e
