"""Sign symmetry: feedback weights share the signs of the forward ones, and not their magnitudes.

Liao, Leibo & Poggio 2016 (arXiv 1510.05067); Moskovitz, Litwin-Kumar & Abbott 2018 (arXiv 1812.06488). With layers
a_l = W_l h_{l-1}, outputs h_l = f_l(a_l) and the error e = dL/da_L:

    delta_L = e,    delta_l = f_l'(a_l) * (B_{l+1}^T delta_{l+1}),    dW_l = delta_l h_{l-1}^T
    B_l = M_l * sign(W_l), the signs of this very step

    uSF ("unit"):    M_l = c_l                       one magnitude for all
    frSF ("fixed"):  M_l random, drawn once          root mean square c_l
    brSF ("batch"):  M_l random, drawn in each step  root mean square c_l

with c_l = sqrt(2 / (fan-in + fan-out)), which is Glorot and Bengio's standard deviation of W_l.

Departures from the papers:
1. Random magnitudes are uniform from zero (the sizes of Glorot's uniform weights); in the first paper normal.
2. No batch-manhattan: the first paper also takes only the sign of the averaged gradient.
3. The feedback of the output block has random magnitudes like every other; others leave that block to backpropagation.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.signs import MAGNITUDES, glorot, signed, sizes


class SignSymmetry(Chain):
    """Sign-symmetric feedback (Liao et al. 2016, Moskovitz et al. 2018) for nets of linear and convolutional blocks.

    Arguments:
        magnitudes: of the feedback: "unit" (uSF), "fixed" (frSF) or "batch" (brSF).
        scale: a factor for all of them.
        The others are those of `Rule`.
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

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        magnitudes: str = "unit",
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if magnitudes not in MAGNITUDES:
            raise UsageError(f"SignSymmetry(magnitudes={magnitudes!r}): choose {', '.join(map(repr, MAGNITUDES))}")
        self.magnitudes, self.scale = magnitudes, scale
        if magnitudes == "fixed":
            self.claims = replace(self.claims, training_only=True)
            for i in self.above:
                self.register_buffer(f"magnitudes_{i}", sizes(self.layer(i).weight, scale, self.generator))

    def back(self, block: int) -> Float[Tensor, "outputs inputs ..."]:
        weight = self.layer(block).weight
        if self.magnitudes == "unit":
            return signed(self.scale * glorot(weight), weight)
        if self.magnitudes == "fixed":
            return signed(self.get_buffer(f"magnitudes_{block}"), weight)
        return signed(sizes(weight, self.scale, self.generator), weight)
