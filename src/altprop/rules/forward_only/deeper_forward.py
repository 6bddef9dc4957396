"""DeeperForward: each class has its own channels in every block, and the mean activity there is its goodness.

Sun, Zhang, He, Wen, Shen & Xie 2025 (ICLR, openreview kOYnXVQCtA). With blocks F_l, whose channels are split into one
group a class, group normalisation N (a group a class, without parameters) and a_0 = x:

    h_l  = F_l(a_{l-1})
    G_lc = mean of h_l over the channels of class c and all places
    L_l  = CE(k G_l, y)                               dW_l = dL_l/dW_l with a_{l-1} held fixed
    a_l  = N(h_l) + a_{l-1}                           the residual only where both have one shape

N sets the mean of every class's channels to zero, so a block cannot read the goodness off the block before it, and a
residual brings none back. A block learns as soon as the input has reached it, and then its activities are dropped.
There are no negatives, and the label is in no input. The class is the one whose goodness, summed over a span of blocks
in a row, is largest; `best_span` chooses the span on samples that were kept out of training.

Departures from the paper:
1. Each input is standardised by itself: a_0 = (x - mean) / deviation over one sample.
2. Goodness is that of the block's output, so after its pooling. Nets and their pooling are the user's.
3. `sharpness` k multiplies the goodness in the loss (the paper's is 1).
4. Where shapes differ there is no residual; the paper's nets join channels there.
5. The span is a hyperparameter, all blocks if not given: a rule has no samples of its own to choose it on.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule, check_batch
from altprop.rules.forward_only import class_groups
from altprop.rules.forward_only.class_groups import Span


class DeeperForward(Rule):
    """DeeperForward (Sun et al. 2025) for blocks of any kind, without an output block.

    A block whose parameters are frozen (`requires_grad` off) has goodness but does not learn; a block without
    parameters is passed through.

    Arguments:
        sharpness: k, the factor of the goodness in each block's softmax.
        residual: add a block's input to its normalised output where both have one shape.
        span: the first and the last block (places in the net) whose goodness is summed to predict; all if left out.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ...

    Raises UsageError for a regression, a net with an output block or without parameters, and for blocks whose channels
    cannot be split into equal groups of at least two values, one a class.
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

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        sharpness: float = 1.0,
        residual: bool = True,
        span: Span | None = None,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self.sharpness = sharpness
        self.residual = residual
        self.learning = class_groups.learning(net)
        self.span = (self.learning[0], self.learning[-1])
        if span is not None:
            self.span = self._checked(span)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        reason = class_groups.refusal(net, problem)
        if reason is not None:
            return reason
        shapes = nets.shapes(net, problem.input_shape)
        for i in class_groups.learning(net)[:-1]:
            if torch.Size(shapes[i]).numel() == problem.outputs:
                return (
                    f"block {i} has one value a class, and normalised by itself it is always zero; "
                    f"give it at least {2 * problem.outputs} channels or units"
                )
        return None

    def _checked(self, span: Span) -> Span:
        first, last = span
        if first > last or not {first, last} <= set(self.learning):
            raise UsageError(
                f"DeeperForward(span={span}): the blocks with goodness are {self.learning}; give the first and the last"
            )
        return first, last

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the last block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        loss, local = x.new_zeros(()), x.new_zeros(())
        for i, g in self._goodness(x):
            local, loss = local + loss, nn.functional.cross_entropy(self.sharpness * g, y)
            if f"blocks.{i}" in self.optimizers:
                loss.backward()
                self.update(f"blocks.{i}")
            loss = loss.detach()
        return {"loss": loss, "local": local}

    def _goodness(self, x: Float[Tensor, "batch ..."]) -> Iterator[tuple[int, Float[Tensor, "batch classes"]]]:
        """Each block's place and goodness; the block may learn from it before the next one is reached."""
        a = standardise(x.detach())
        for i, block in enumerate(self.net):
            h = block(a)
            if i in self.learning:
                yield i, mean_activity(h, self.problem.outputs)
            if i == self.learning[-1]:
                return
            a = self._onward(i, h.detach(), a)

    def _onward(self, i: int, h: Tensor, a: Tensor) -> Float[Tensor, "batch ..."]:
        """What the next block is given: a_l."""
        if i not in self.learning:
            return h
        n = nn.functional.group_norm(h, self.problem.outputs)
        return n + a if self.residual and n.shape == a.shape else n

    def _summed(self, x: Float[Tensor, "batch ..."], first: int, last: int) -> Float[Tensor, "batch classes"]:
        total = x.new_zeros(len(x), self.problem.outputs)
        for i, g in self._goodness(x):
            if first <= i <= last:
                total = total + g
            if i == last:
                break
        return total

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness summed over the span."""
        return self._summed(x, *self.span)

    def last(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness at the last block."""
        return self._summed(x, self.learning[-1], self.learning[-1])

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the span, which is `forward`, and by the last block."""
        return {"sum": self.forward, "last": self.last}

    @torch.no_grad()
    def best_span(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, " batch"]) -> Span:
        """The span that predicts best on these samples, which training has not seen; then set `rule.span` to it."""
        check_batch(self, x, y)
        first, last = class_groups.best_span([g for _, g in self._goodness(x)], y)
        return self.learning[first], self.learning[last]


def standardise(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Each sample with mean 0 and variance 1."""
    return nn.functional.layer_norm(x, x.shape[1:])


def mean_activity(h: Float[Tensor, "batch ..."], classes: int) -> Float[Tensor, "batch classes"]:
    """G: the mean activity of each class's channels."""
    return class_groups.grouped(h, classes).mean(2)
