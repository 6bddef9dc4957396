"""Backpropagation with gradient accumulation: a batch goes through in micro-batches, and one update follows.

Folklore; the words are those of Huang et al. 2019 (arXiv 1811.06965). With a batch of n samples in micro-batches B_m of
n_m samples each:

    dW = sum_m (n_m / n) d(mean loss of B_m)/dW        the gradient of the whole batch's mean loss

Activities are alive for one micro-batch at a time. The control of claims about memory: a smaller batch is the simplest
way to need less, and costs nothing but speed.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import losses, output_missing


class AccumulatedBackprop(Rule):
    """Backpropagation of one micro-batch after another, with one update a batch.

    Its gradients are backpropagation's to rounding, unless a block mixes samples (batch normalisation sees
    micro-batches).

    Arguments:
        micro_batches: into how many parts a batch is cut, of equally many samples within one; no more than it has.
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
    ties = True

    def __init__(
        self, net: nn.Sequential, problem: Problem | None = None, *, micro_batches: int = 4, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        if micro_batches < 1:
            raise UsageError(f"AccumulatedBackprop: micro_batches={micro_batches} must be 1 or more")
        self.micro_batches = micro_batches

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem)

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        count, total = min(self.micro_batches, len(x)), x.new_zeros(())
        for part, labels in zip(x.tensor_split(count), y.tensor_split(count), strict=True):
            total += self._accumulate(part, labels, len(part) / len(x))
        for name in reversed(self.optimizers):
            self.update(name)
        return {"loss": total}

    @torch.enable_grad()
    def _accumulate(self, x: Tensor, y: Tensor, share: float) -> Float[Tensor, ""]:
        """A micro-batch's part of the loss; its gradient is added to what lies in `.grad`."""
        loss = share * losses(self.net(x), y, self.problem.kind).mean()
        loss.backward()
        return loss.detach()
