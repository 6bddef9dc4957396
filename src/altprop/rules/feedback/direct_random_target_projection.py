"""Direct random target projection: the label itself goes to every block, through fixed random weights; no error does.

Frenkel, Lefebvre & Bol 2021 (arXiv 1909.01311, doi 10.3389/fnins.2021.629892). With blocks h_l = F_l(h_{l-1}, W_l),
scores h_L, one-hot labels y and the error e = softmax(h_L) - y:

    delta_l = -B_l y  in the place of dL/dh_l,    dW_l = (dF_l/dW_l)^T delta_l,    output block: delta_L = e

The error's sign is known beforehand: e is negative for the true class and positive for all others, so that -y stands
for e in direct feedback alignment's B_l e. A descent then moves h_l towards B_l y. The output weights, which learn from
h_{L-1}, come to point the same way, and so the true gradient W_L^T e has a part along -B_{L-1} y. A sample's label is
there before its forward pass is over: a block learns as soon as it is reached, and then its activities are dropped.

Departures from the paper:
1. The sign is written out. The paper's B_l is drawn symmetrically around zero, so that +B_l y (as in the authors' code)
   and -B_l y are the same rule; for a B_l that is given, as the output weights, only -B_l y descends.
2. Softmax and cross-entropy at the output (the paper: sigmoids and binary cross-entropy on MNIST), with Adam.
3. B_l reaches the output of a whole block, behind its activation and pooling, so that the rule holds for any block.
4. B_l is normal with standard deviation scale / sqrt(units of the block's output); the paper draws it uniform, with
   sqrt(2 / units). Weights keep the net's own initialisation.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_missing
from altprop.rules.random_feedback import feedback_to_blocks
from altprop.rules.watch import check_units


class DirectRandomTargetProjection(Rule):
    """Direct random target projection (Frenkel, Lefebvre & Bol 2021) for blocks of any kind, with an output block.

    Only a block's inside must have a derivative; a block without parameters needs none. Blocks want an activation that
    saturates (`act="tanh"`): the signal never fades, and what bounds the activities is the activation.

    Arguments:
        scale: the feedback B_l (classes, *shape of the block's output) is N(0, scale^2 / units of that output).
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self, net: nn.Sequential, problem: Problem | None = None, *, scale: float = 1.0, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        for name, b in feedback_to_blocks(self, scale).items():
            self.register_buffer(name, b)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return (
                "a class label tells the sign of the error, and the targets of a regression do not; choose another rule"
            )
        return output_missing(net, problem)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the output block's; no other block has one."""
        assert y is not None
        h, last = x.detach(), len(self.net) - 1
        for i, block in enumerate(self.net):
            before, h = h.detach(), block(h.detach())
            check_units(self, i, before, h)
            if i < last and f"blocks.{i}" in self.optimizers:
                h.backward(self._project(i, y))
                self.update(f"blocks.{i}")
        loss = nn.functional.cross_entropy(h, y)
        if loss.requires_grad:
            loss.backward()
            self.update(f"blocks.{last}")
        return {"loss": loss.detach()}

    def _project(self, i: int, y: Int64[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
        """delta_i = -B_i y, averaged over the batch; a one-hot label chooses a row, so that this is no product."""
        return self.get_buffer(f"feedback_{i}")[y].div_(-len(y))
