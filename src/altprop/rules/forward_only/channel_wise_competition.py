"""Channel-wise competition (CwComp): each class has its own channels in every block, and their energy is its goodness.

Papachristodoulou, Kyrkou, Timotheou & Theocharides 2024 (AAAI; arXiv 2312.12668). With blocks F_l, whose channels are
split into one group a class, batch normalisation N (a mean and a deviation a channel) and z_0 = x:

    z_l  = N(F_l(z_{l-1}))
    G_lc = mean of z_l^2 over the channels of class c and all places
    L_l  = CE(k G_l, y)                               dW_l = dL_l/dW_l, through N, with z_{l-1} held fixed

N gives every channel the mean square 1 over the batch, so that a class can only win on some samples by losing on
others. A block learns as soon as the input has reached it, and then its activities are dropped. There are no
negatives, and the label is in no input. Predictions: the class of the largest goodness at the last block, or of the sum
over all blocks.

Departures from the paper:
1. N has no parameters; `sharpness` k takes the place of its scale (the paper's k is 1).
2. A batch that gives a channel one value only (one sample, no image) has no deviation: N takes the running averages,
   as it does to predict.
3. All blocks learn from the first step to the last; the paper starts and stops them one after another.
4. Grouped convolutions between the plain ones are up to the net, as is pooling. The softmax on all features, the
   paper's other predictor, is left out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only import class_groups


class ChannelWiseCompetition(Rule):
    """CwComp (Papachristodoulou et al. 2024) for blocks of any kind, without an output block.

    A block whose parameters are frozen (`requires_grad` off) has goodness but does not learn; a block without
    parameters is passed through.

    Arguments:
        sharpness: k, the factor of the goodness in each block's softmax.
        momentum: the weight of a batch in the running averages that predictions are normalised by.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ...

    Raises UsageError for a regression, a net with an output block or without parameters, and for blocks whose channels
    cannot be split into equal groups, one a class.
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
        momentum: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self.sharpness = sharpness
        shapes = nets.shapes(net, self.problem.input_shape)
        self.norms = nn.ModuleDict()
        for i in class_groups.learning(net):
            norm = Standardise(class_groups.channels(net, shapes, i), momentum)
            self.norms[str(i)] = norm.to(next(net[i].parameters()))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return class_groups.refusal(net, problem)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the last block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        loss, local = x.new_zeros(()), x.new_zeros(())
        for i, g in self._goodness(x, learning=True):
            local, loss = local + loss, nn.functional.cross_entropy(self.sharpness * g, y)
            if f"blocks.{i}" in self.optimizers:
                loss.backward()
                self.update(f"blocks.{i}")
            loss = loss.detach()
        return {"loss": loss, "local": local}

    def _goodness(
        self, x: Float[Tensor, "batch ..."], learning: bool = False
    ) -> Iterator[tuple[int, Float[Tensor, "batch classes"]]]:
        """Each block's place and goodness; the block may learn from it before the next one is reached."""
        z = x.detach()
        for i, block in enumerate(self.net):
            z = block(z)
            if str(i) in self.norms:
                z = self.norms[str(i)](z, learning)
                yield i, energy(z, self.problem.outputs)
            z = z.detach()

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness summed over the blocks."""
        total = x.new_zeros(len(x), self.problem.outputs)
        for _, g in self._goodness(x):
            total = total + g
        return total

    def last(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness at the last block."""
        for _, g in self._goodness(x):
            found = g
        return found

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the sum over the blocks, which is `forward`, and by the last one."""
        return {"sum": self.forward, "last": self.last}


class Standardise(nn.Module):
    """N: batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167) without parameters; images may be flattened."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, h: Float[Tensor, "batch ..."], learning: bool) -> Float[Tensor, "batch ..."]:
        """By the batch's own statistics while learning, else by the running ones."""
        rows = h.reshape(len(h), len(self.mean), -1)
        alone = rows[:, 0].numel() == 1
        z: Tensor = nn.functional.batch_norm(
            rows, self.mean, self.variance, training=learning and not alone, momentum=self.momentum
        )
        return z.view_as(h)


def energy(z: Float[Tensor, "batch ..."], classes: int) -> Float[Tensor, "batch classes"]:
    """G: the mean square of each class's channels."""
    rows = class_groups.grouped(z, classes)
    g: Tensor = torch.linalg.vecdot(rows, rows)
    return g / rows.size(2)
