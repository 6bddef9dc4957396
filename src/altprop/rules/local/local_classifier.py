"""Local classifiers: every module of blocks learns by the cross-entropy of a linear classifier of its own.

Belilovsky, Eickenberg & Oyallon 2019 (arXiv 1812.11446) and 2020 (arXiv 1901.08164); with one block a module also the
"pred" loss of Nøkland & Eidnes 2019 (arXiv 1901.06656). With modules F_k of consecutive blocks and classifiers C_k:

    h_k = F_k(h_{k-1}),    L_k = CE(C_k(h_k), y),    last module, which ends in the output block: L_K = CE(h_K, y)
    dW = dL_k/dW for the weights of module k and of C_k, with h_{k-1} held fixed

`block_size` goes from one block a module to the whole net, which is backpropagation. order="simultaneous": all modules
learn from every batch, each before the next one is entered (2020, synchronous); "greedy": one after another, each for
its share of the run, on what the finished ones before it give (2019).

Departures from the papers:
1. The classifier is one linear layer on averaged images ("pred" of 2019); Belilovsky's have hidden layers, too.
2. Modules count the output block. With one block a module it learns alone, on features that it cannot change.
3. Regression: half the squared error of a linear readout.
"""

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.local.heads import Readout
from altprop.rules.local.modules import Modular
from altprop.rules.losses import losses

ORDERS = ("simultaneous", "greedy")


class LocalClassifier(Modular):
    """Local classifiers (Belilovsky et al. 2019, 2020) for modules of any number of blocks of any kind.

    Arguments:
        block_size: how many consecutive blocks make a module, the output block counted; from 1 to the whole net.
        order: "simultaneous", or "greedy": one module after another, by progress.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.i" (the classifier of the
        module that ends with block i).
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
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        block_size: int = 1,
        order: str = "simultaneous",
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if block_size < 1:
            raise UsageError(f"LocalClassifier: block_size={block_size} must be 1 or more")
        if order not in ORDERS:
            known = " or ".join(repr(choice) for choice in ORDERS)
            raise UsageError(f"LocalClassifier: order={order!r} is not known; choose {known}")
        self.order = order
        self.cut([range(i, min(i + block_size, len(net))) for i in range(0, len(net), block_size)])
        self.learners = [k for k, module in enumerate(self.ranges) if self.parts(module)]
        if block_size > 1:
            self.claims = replace(self.claims, later_blocks="all", differentiable=True)
        if len(self.ranges) == 1:
            self.claims = replace(self.claims, forward_lock=True, update_lock=True, memory="grows", training_only=False)

    def head(self, shape: tuple[int, ...]) -> nn.Module:
        return Readout(shape, self.problem.outputs, self.generator)

    def local_loss(self, last: int, h: Tensor, x: Tensor, y: Tensor) -> Float[Tensor, ""]:
        return losses(self.heads[str(last)](h), y, self.problem.kind).mean()

    def turn(self) -> int | None:
        if self.order == "simultaneous" or not self.learners:
            return None
        return self.learners[min(int(self.progress * len(self.learners)), len(self.learners) - 1)]

    def progress_of(self, part: str) -> float:
        """Greedy modules have the whole schedule in their share of the run."""
        if self.order == "simultaneous":
            return self.progress
        place = next(place for place, k in enumerate(self.learners) if part in self.parts(self.ranges[k]))
        return min(1.0, max(0.0, self.progress * len(self.learners) - place))
