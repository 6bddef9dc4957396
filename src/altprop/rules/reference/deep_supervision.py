"""Deep supervision: backpropagation through the whole net, with the losses of local classifiers added to its own.

Lee, Xie, Gallagher, Zhang & Tu 2015 (arXiv 1409.5185). With blocks h_l = F_l(h_{l-1}) and linear classifiers C_l on the
modules' ends, the same that `LocalClassifier` has:

    L = CE(h_L, y) + weight sum over the modules' ends l < L of CE(C_l(h_l), y),    dW = dL/dW for all weights

The control of local losses: the same losses and the same parameters, and nothing cut off. What local losses save in
memory, and what they lose in accuracy, is to be measured against it.

Departures from the paper:
1. Cross-entropy instead of squared hinge losses, a constant weight instead of one that decays or a threshold.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.local.heads import Readout
from altprop.rules.losses import losses, output_missing
from altprop.rules.watch import check_units


class DeepSupervision(Rule):
    """Backpropagation with local classifiers' losses added (Lee et al. 2015): the control of local losses.

    Arguments:
        block_size: a classifier stands behind every so many blocks, the output block counted.
        weight: of each classifier's loss; the output's has 1.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.i" (the classifier behind
        block i).
    """

    claims = Claims(
        later_blocks="all",
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
        block_size: int = 1,
        weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if block_size < 1 or weight < 0:
            raise UsageError(f"DeepSupervision: block_size={block_size} must be 1 or more, weight={weight} not below 0")
        self.weight = weight
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape) if block_size < len(net) else []
        for end in range(block_size, len(net), block_size):
            if any(f"blocks.{i}" in self.optimizers for i in range(end - block_size, end)):
                head = Readout(shapes[end - 1], self.problem.outputs, self.generator)
                self.heads[str(end - 1)] = head.to(next(net.parameters()))
                self.add_part(f"heads.{end - 1}", head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the output's; "local" is the sum of the classifiers'."""
        assert y is not None
        h, local = x, x.new_zeros(())
        for i, block in enumerate(self.net):
            before, h = h, block(h)
            check_units(self, i, before, h)
            if str(i) in self.heads:
                local = local + losses(self.heads[str(i)](h), y, self.problem.kind).mean()
        loss = losses(h, y, self.problem.kind).mean()
        (loss + self.weight * local).backward()
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": loss.detach(), "local": local.detach()}
