"""Unsupervised forward-forward: each block learns to tell images from images that only look like ones close by.

Hinton 2022 (arXiv 2212.13345), unsupervised. Positives are the images x; negatives are hybrids, patched together from
two images by a random mask of large blobs, or the images blurred. Both go through the net block by block:

    a_0 = N(x),  h_l = F_l(a_{l-1}),  a_l = N(h_l)        N(h) = h / sqrt(mean h^2)
    G_l = g(h_l),  p_l = sigmoid((G_l - theta_l) / T)     goodness, and what block l believes to be an image
    L_l = BCE(p_l, image or not)                          dW_l = dL_l/dW_l with a_{l-1} held fixed
    logits = sum_{l >= 2} V_l a_l  of the images          dV_l = dCE(logits, y)/dV_l with all a_l held fixed

Labels are read by the linear softmax alone, which never tells a block anything. Prediction: the logits.
Peer normalisation: on positives, unit j is pushed up by peer (mean_k m_k - m_j), with m the running mean of h.

Departures from the paper:
1. The softmax learns along with the blocks, and not after them; it starts at zero, and has no bias.
2. A mask is on above its own mean, and not above 1/2: many blurs leave hardly a mask that crosses 1/2.
3. theta_l is the block's width, but half of it where activities cannot exceed 1; other goodness, see `goodness.py`.
4. With one block that learns, the softmax reads that one: there is no other.
5. The blocks' schedule runs out at the share `settle` of the run, after which the softmax learns on fixed features.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import isqrt, prod
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule
from altprop.rules.forward_only.activity import limited, normalised, normalised_, refused, softmax_error
from altprop.rules.forward_only.goodness import Goodness
from altprop.rules.forward_only.goodness import goodness as goodness_of
from altprop.rules.forward_only.negatives import blurred, hybrids

OPTIMIZERS: OptimizerSpec = {
    "blocks": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-3, fused=True),
    "heads": partial(torch.optim.Adam, lr=3e-3, fused=True),
}

BLURS = {"hybrid": 6, "blurred": 4}
"""How often masks, or images, are blurred by default."""


class UnsupervisedForwardForward(Rule):
    """The forward-forward algorithm without labels (Hinton 2022), and a linear softmax on what it has learnt.

    `step(x)` without labels trains the blocks and leaves the softmax alone.

    Arguments:
        negatives: "hybrid" (two images of the batch, mixed by a mask) or "blurred".
        blurs: how often the masks, or the images, are blurred with [1/4, 1/2, 1/4] along both axes: more give larger
            blobs. None: 6 for masks, 4 for images.
        goodness: g, by name ("sum-of-squares", "mean-of-squares", "sparse", ...) or as a `Goodness`.
        threshold: theta in units of the goodness's own for ReLU; None: 1, or less where activities cannot exceed 1.
        temperature: T, what a difference in goodness is divided by.
        peer: strength of the peer normalisation; 0 for none.
        settle: the share of the run in which the blocks learn.
        skip_first: whether the softmax leaves out the first block, as the paper's does.
        image: (channels, height, width) of the images behind flat inputs; None: a square image, grey or of three
            channels, where the inputs' size allows, and one row of pixels otherwise.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.1", ... (see `read`).

    Attributes:
        read: the places of the blocks that the softmax reads.
        thresholds: theta by the place of the block.

    A batch of one image has no other to be mixed with: `step` raises UsageError for it, unless negatives are blurred.
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
        labels=False,
        batch_of_one=False,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        negatives: str = "hybrid",
        blurs: int | None = None,
        goodness: str | Goodness = "sum-of-squares",
        threshold: float | None = None,
        temperature: float = 1.0,
        peer: float = 0.0,
        settle: float = 1.0,
        skip_first: bool = True,
        image: tuple[int, int, int] | None = None,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        if negatives not in BLURS:
            raise UsageError(
                f"UnsupervisedForwardForward: negatives={negatives!r} is not known; choose 'hybrid' or 'blurred'"
            )
        if temperature <= 0 or not 0 < settle <= 1:
            raise UsageError(
                f"UnsupervisedForwardForward: temperature={temperature} must be positive, and settle={settle} a share "
                "above 0 and up to 1"
            )
        self.negatives, self.temperature, self.peer, self.settle = negatives, temperature, peer, settle
        self.blurs = BLURS[negatives] if blurs is None else blurs
        self.image = image_shape(tuple(int(n or 0) for n in self.problem.input_shape), image)
        self.claims = replace(self.claims, training_only=peer != 0, batch_of_one=negatives == "blurred")
        self.goodness = goodness_of(goodness)
        self.learners = [i for i in range(len(net)) if f"blocks.{i}" in self.optimizers]
        self.read = (self.learners[1:] if skip_first else []) or self.learners
        self.thresholds: dict[int, float] = {}
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape)
        for i in self.learners:
            self._equip(i, shapes[i], threshold)

    def _equip(self, i: int, shape: tuple[int, ...], threshold: float | None) -> None:
        """The threshold, the peers' means and the slice of block i."""
        reason = self.goodness.refuses(shape)
        if reason is not None:
            raise UsageError(f"UnsupervisedForwardForward: the goodness of block {i}: {reason}")
        like = next(self.net[i].parameters())
        if threshold is None:
            self.thresholds[i] = self.goodness.threshold(shape, limited(self.net[i]))
        else:
            self.thresholds[i] = threshold * self.goodness.threshold(shape)
        if self.peer:
            self.register_buffer(f"means_{i}", like.new_full(shape, 0.5))
        if i in self.read:
            head = nn.utils.skip_init(nn.Linear, prod(shape), self.problem.outputs, bias=False).to(like)
            self.heads[str(i)] = head
            nn.init.zeros_(head.weight)
            self.add_part(f"heads.{i}", head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := refused(net, problem)) is not None:
            return reason
        if None in problem.input_shape or len(problem.input_shape) not in (1, 3):
            return f"its negatives need the size of the images, and inputs have shape {problem.input_shape}"
        return None

    # Learning.

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """Block by block, then the softmax; "loss" is the mean loss of the blocks, "head_loss" the softmax's."""
        metrics = {"loss": self._teach(x) if self.progress < self.settle else x.new_zeros(())}
        if y is not None:
            metrics["head_loss"] = self._classify(x, y)
        return metrics

    def _teach(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
        """The blocks learn, each before the next one is entered; their mean loss."""
        a, losses = normalised_(torch.cat([x, self.negatives_of(x)])), x.new_zeros(())
        for i in range(self.learners[-1] + 1):
            if i in self.learners:
                h, loss = self._contrast(i, a)
                losses += loss
            else:
                h = self.net[i](a)
            a = normalised_(h)
        return losses / len(self.learners)

    def _classify(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The softmax learns from what the blocks have become; its cross-entropy.

        All slices share one error, for which the images go through the blocks once, and once more for the slices to
        learn one by one: no list of activities is kept.
        """
        logits = self.forward(x)
        error = softmax_error(logits, y)
        for i, a in self._read(x):
            self.heads[str(i)].weight.grad = error.T @ a
            self.update(f"heads.{i}")
        return nn.functional.cross_entropy(logits, y)

    def negatives_of(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """One negative for each image."""
        if self.negatives == "blurred":
            return blurred(x, self.blurs, shape=self.image)
        return hybrids(x, self.generator, blurs=self.blurs, shape=self.image)

    @torch.enable_grad()
    def _contrast(self, i: int, a: Float[Tensor, "rows ..."]) -> tuple[Float[Tensor, "rows ..."], Float[Tensor, ""]]:
        """Block i learns from positives and negatives, stacked; returns what it made of them, and its loss."""
        z, h = respond(self.net[i], a)
        loss = contrast_loss((self.goodness(h) - self.thresholds[i]) / self.temperature)
        (loss - self._peers(i, z, h) if self.peer else loss).backward()
        self.update(f"blocks.{i}")
        return h.detach(), loss.detach()

    def _peers(self, i: int, z: Tensor, h: Tensor) -> Float[Tensor, ""]:
        """Peer normalisation: what a unit lacks to its peers' mean activity, times its mean activity on positives.

        Taken at z, before the activation, where that has the same shape: not gated by the activation's slope, so that
        a unit that is always off comes back.
        """
        batch = len(h) // 2
        m = self.get_buffer(f"means_{i}")
        m.mul_(0.9).add_(h[:batch].detach().mean(0), alpha=0.1)
        pushed = z if z.shape == h.shape else h
        return (pushed[:batch].mean(0) * (m.mean() - m)).sum() * self.peer

    def progress_of(self, part: str) -> float:
        """The blocks have the whole schedule in their share of the run."""
        return self.progress if part.startswith("heads") else min(1.0, self.progress / self.settle)

    # Prediction.

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The logits of the softmax."""
        logits = x.new_zeros(len(x), self.problem.outputs)
        for i, a in self._read(x):
            logits = logits + self.heads[str(i)](a)
        return logits

    def _read(self, x: Float[Tensor, "batch ..."]) -> Iterator[tuple[int, Float[Tensor, "batch units"]]]:
        """The place of each block that the softmax reads, and its normalised activities."""
        a = normalised(x)
        for i in range(self.read[-1] + 1):
            a = normalised(self.net[i](a))
            if i in self.read:
                yield i, a.flatten(1)

    def excess(self, x: Float[Tensor, "batch ..."]) -> dict[int, Float[Tensor, "batch sites"]]:
        """By block, the goodness above the threshold: what the block takes for an image is above 0."""
        a, found = normalised(x), {}
        for i, block in enumerate(self.net):
            h = block(a)
            if i in self.learners:
                found[i] = self.goodness(h) - self.thresholds[i]
            a = normalised(h)
        return found


def respond(
    block: nn.Module, a: Float[Tensor, "rows ..."]
) -> tuple[Float[Tensor, "rows ..."], Float[Tensor, "rows ..."]]:
    """The block's affine response z and its output h; h twice where the block has no affine layer of its own."""
    if not isinstance(block, nets.Block) or block.affine is None:
        h = block(a)
        return h, h
    z = h = block.affine(a)
    for part in (block.norm, block.activation, block.pool):
        h = h if part is None else part(h)
    return z, h


def contrast_loss(s: Float[Tensor, "rows sites"]) -> Float[Tensor, ""]:
    """BCE with logits s: the first half of the rows is positive, the second negative."""
    positive, negative = s.chunk(2)
    return (nn.functional.softplus(-positive).mean() + nn.functional.softplus(negative).mean()) / 2


def image_shape(inputs: tuple[int, ...], image: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """(channels, height, width) of the images; raises UsageError if they do not have as many entries as the inputs."""
    if len(inputs) == 3:
        found = (inputs[0], inputs[1], inputs[2])
    elif image is not None:
        found = image
    else:
        size = inputs[0]
        channels = next((c for c in (1, 3) if size % c == 0 and isqrt(size // c) ** 2 == size // c), None)
        found = (1, 1, size) if channels is None else (channels, isqrt(size // channels), isqrt(size // channels))
    if prod(found) != prod(inputs) or (image is not None and found != tuple(image)):
        raise UsageError(
            f"UnsupervisedForwardForward: image={image} does not fit inputs of shape {inputs}; give (channels, height, "
            "width) with as many entries"
        )
    return found
