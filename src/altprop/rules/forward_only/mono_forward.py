"""Mono-Forward: every block has a learned projection onto the classes, and learns from its own cross-entropy.

Gong, Li & Abdulla 2025 (arXiv 2501.09238). With blocks F_i, activities a_i of n_i values and projections M_i
(classes x n_i):

    a_i = F_i(a_{i-1})
    G_i = a_i M_i^T                                   goodness, one a class
    L_i = CE(G_i, y)                                  dW_i = dL_i/dW_i,  dM_i = dL_i/dM_i,  a_{i-1} held fixed

A block learns as soon as the input has reached it, and then its activities are dropped. Predictions: the largest
goodness at the last block, or of the sum over all blocks.

Departures from the paper:
1. Blocks are of any kind: activities that are no vectors (images) are flattened for the projection, never pooled.
2. M_i starts normal with variance 1 / n_i, so that every block's first loss is near log(classes).
3. All blocks learn in one pass over each batch, and none is trained to its end before the next one starts.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Claims, Metrics, Problem, Rule


class MonoForward(Rule):
    """Mono-Forward (Gong, Li & Abdulla 2025) for blocks of any kind, without an output block.

    A block whose parameters are frozen (`requires_grad` off) stays as it is while its projection learns; a block
    without parameters is passed through.

    Arguments: those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.0", "heads.1", ... (the
    projections M_i).

    Raises UsageError for a regression, and for a net with an output block or without parameters.
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: Any) -> None:
        super().__init__(net, problem, **options)
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape)
        for i, block in enumerate(net):
            weight = next(block.parameters(), None)
            if weight is not None:
                head = nets.linear(math.prod(shapes[i]), self.problem.outputs, "lecun", self.generator, bias=False)
                self.heads[str(i)] = head.to(weight)
                self.add_part(f"heads.{i}", head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its projections tell classes apart, and a regression has none; choose another rule"
        if nets.output_layer(net) is not None:
            return "it brings a projection for every block, the last one too; build the net without classes"
        if not any(True for _ in net.parameters()):
            return "it needs a block with parameters (build the net with altprop.nets and a hidden width)"
        return None

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the last block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        a, loss, local = x.detach(), x.new_zeros(()), x.new_zeros(())
        for i, block in enumerate(self.net):
            a = block(a)
            if str(i) in self.heads:
                local, loss = local + loss, self._descend(i, a, y)
            a = a.detach()
        return {"loss": loss, "local": local}

    def _descend(self, i: int, a: Float[Tensor, "batch ..."], y: Shaped[Tensor, " batch"]) -> Tensor:
        """Block i and its projection learn from L_i."""
        loss = nn.functional.cross_entropy(self._goodness(i, a), y)
        loss.backward()
        for part in (f"blocks.{i}", f"heads.{i}"):
            if part in self.optimizers:
                self.update(part)
        return loss.detach()

    def _goodness(self, i: int, a: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """G_i = a_i M_i^T."""
        scores: Tensor = self.heads[str(i)](a.flatten(1))
        return scores

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness at the last block."""
        last = max(int(i) for i in self.heads)
        for block in list(self.net)[: last + 1]:
            x = block(x)
        return self._goodness(last, x)

    def sum(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness summed over the blocks."""
        scores = x.new_zeros(len(x), self.problem.outputs)
        for i, block in enumerate(self.net):
            x = block(x)
            if str(i) in self.heads:
                scores = scores + self._goodness(i, x)
        return scores

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the last block, which is `forward`, and by the sum of all."""
        return {"last": self.forward, "sum": self.sum}
