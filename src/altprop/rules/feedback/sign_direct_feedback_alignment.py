"""Sign direct feedback alignment: hidden blocks are told the signs of the output's errors, and not their sizes.

Frenkel, Lefebvre & Bol 2021 (arXiv 1909.01311, doi 10.3389/fnins.2021.629892), where it stands between direct feedback
alignment and direct random target projection. With blocks h_l = F_l(h_{l-1}, W_l), scores h_L, the error
e = softmax(h_L) - onehot(y) (h_L - y for regression) and fixed random B_l:

    delta_l = B_l sign(e)  in the place of dL/dh_l,    dW_l = (dF_l/dW_l)^T delta_l,    output block: delta_L = e

With a softmax the signs of e are those of 1 - 2 onehot(y) and known beforehand (but for probabilities that are rounded
to 0 or 1), so that hidden blocks learn from the label alone; with a regression they are news. The signal to hidden
blocks never fades: it wants a rate that falls and activations that saturate.

Departures from the paper:
1. Softmax and cross-entropy at the output; the paper has sigmoids and their cross-entropy on MNIST. The signs are the
   same.
2. B_l reaches the output of a whole block, behind its activation and pooling, so that the rule holds for any block.
3. B_l is normal with standard deviation scale / sqrt(units of the block's output); the paper draws it uniform.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from altprop.rule import Claims, Problem
from altprop.rules.feedback.direct import Direct


class SignDirectFeedbackAlignment(Direct):
    """Direct feedback alignment of the error's signs (Frenkel, Lefebvre & Bol 2021) for blocks of any kind.

    Only a block's inside must have a derivative; a block without parameters needs none. Blocks want an activation that
    saturates (`act="tanh"`). Classes' signs say nothing of later blocks; a regression's are those of its prediction.

    Arguments:
        scale: the feedback B_l (outputs, *shape of the block's output) is N(0, scale^2 / units of that output).
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="none",
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

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: Any) -> None:
        super().__init__(net, problem, **options)
        if self.problem.kind == "regression":
            self.claims = replace(self.claims, later_blocks="prediction")

    def told(self, e: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch outputs"]:
        return e.sign().div_(len(e))
