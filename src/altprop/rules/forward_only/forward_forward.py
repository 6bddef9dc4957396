"""Forward-forward: each block learns by itself to be active for the right label and quiet for a wrong one.

Hinton 2022 (arXiv 2212.13345), supervised, after the recipe of his MATLAB code. The label stands in the input x: the
true one (positive), a wrong one (negative), or a weak mixture of all (neutral). Then

    a_0 = N(x),  h_l = F_l(a_{l-1}),  a_l = N(h_l)        N(h) = h / sqrt(mean h^2)
    G_l = g(h_l),  p_l = sigmoid((G_l - theta_l) / T)      goodness, and what block l believes to be positive
    L_l = BCE(p_l, positive or not)                        dW_l = dL_l/dW_l with a_{l-1} held fixed
    logits = sum_{l >= 2} V_l a_l  of the neutral input    dV_l = dCE(logits, y)/dV_l with a_l held fixed

Peer normalisation: on positives, unit j is pushed up by peer (mean_k m_k - m_j), with m the running mean of h.
Predictions: the head's logits (one pass), or the label with the highest energy sum_{l >= 2} G_l (one pass a class).

Variants: goodness g (see `goodness.py`); loss="symba" (Lee & Song 2023, arXiv 2303.08418): softplus((G- - G+) / T);
collaborate (Lorberbom et al. 2023, arXiv 2305.12393): p_l = sigmoid((sum_k G_k - theta_k) / T), only G_l being
differentiated; sleep: so many steps of positives only, then as many of negatives only (Hinton 2022, section 4).

Departures from the paper:
1. Each block has its own slice V_l of the softmax, with its own optimizer, so that no list of activities is kept.
   V_l starts at zero and has no bias: the activities have a fixed length and are not centred.
2. With one hidden block, head and energy read that one, though it sees the label: there is no other.
3. theta_l is the block's width, as in the MATLAB code, but half of it where activities cannot exceed 1.
4. Blocks without trainable parameters pass on what they get: they have no goodness and no slice.
5. By default the label is written as 2 and not as 1, batches are smaller (50), peers push less (0.01, not 0.03), and
   weights decay faster: in few epochs this came out better on validation.
6. Collaboration: the other blocks' goodness counts from their own thresholds, as it was before this step's updates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule
from altprop.rules.forward_only.activity import limited, normalised, refused, softmax_error
from altprop.rules.forward_only.goodness import Goodness
from altprop.rules.forward_only.goodness import goodness as goodness_of
from altprop.rules.forward_only.labels import PLACEMENTS, Labels, Shared, unfit
from altprop.rules.forward_only.negatives import hard_negatives, uniform_negatives

SGD: OptimizerSpec = {
    "blocks": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-2, fused=True),
    "heads": partial(torch.optim.SGD, lr=5e-3, momentum=0.9, weight_decay=3e-3, fused=True),
}
"""For batches of about 50, with a rate that falls to zero in the second half (`schedules.hold_then_fall`)."""

AFFINE = (nn.Linear, nn.Conv2d, nets.Local)

CHOICES = {"negatives": ("hard", "uniform"), "loss": ("logistic", "symba"), "placement": PLACEMENTS}


class ForwardForward(Rule):
    """The forward-forward algorithm (Hinton 2022), supervised.

    Arguments:
        goodness: g, by name ("sum-of-squares", "mean-of-squares", "sum-of-absolutes", "negative-sum-of-squares",
            "sparse", ...) or as a `Goodness`; a list has one for each block that learns.
        negatives: "hard" (drawn from the head's prediction without the true class) or "uniform" (any wrong class).
        placement: of the label: "overlay", "concatenate" (the net takes `outputs` more features) or "channel" (one
            more channel, or a flat input twice as long).
        threshold: theta in units of the goodness's own for ReLU; None: 1, or less where activities cannot exceed 1.
        temperature: T, what a difference in goodness is divided by.
        label: strength of a label in the input; neutral: that of all labels together where none is given.
        peer: strength of the peer normalisation; 0 for none.
        loss: "logistic", or "symba", which compares each positive with its negative and has no threshold.
        normalise: whether each block sees normalised activities.
        skip_first: whether head and energy leave out the first block, which sees the label.
        together: whether all blocks learn at once, or one after another, each for its share of the run.
        collaborate: whether the other blocks' goodness enters each block's probability.
        sleep: length in steps of the separate positive and negative phases; 0: both in every step.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.1", ... (see `read`).

    Attributes:
        read: the places of the blocks that head and energy read.
        thresholds: theta by the place of the block.
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
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
        goodness: str | Goodness | Sequence[str | Goodness] = "sum-of-squares",
        negatives: str = "hard",
        placement: str = "overlay",
        threshold: float | None = None,
        temperature: float = 1.0,
        label: float = 2.0,
        neutral: float = 0.1,
        peer: float = 0.01,
        loss: str = "logistic",
        normalise: bool = True,
        skip_first: bool = True,
        together: bool = True,
        collaborate: bool = False,
        sleep: int = 0,
        optimizer: OptimizerSpec = SGD,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        _check(negatives=negatives, loss=loss, placement=placement)
        if temperature <= 0 or sleep < 0:
            raise UsageError(
                f"ForwardForward: temperature={temperature} must be positive, and sleep={sleep} not below 0"
            )
        if loss == "symba" and (sleep or collaborate):
            raise UsageError(
                "ForwardForward: loss='symba' compares a positive with its negative in the same step and has no "
                "threshold, so it cannot be had with sleep or collaborate; choose loss='logistic'"
            )
        self.negatives, self.temperature, self.peer, self.loss = negatives, temperature, peer, loss
        self.normalise, self.together, self.collaborate, self.sleep = normalise, together, collaborate, sleep
        self.claims = self._claims(placement)
        like = next(net.parameters())
        self.first = first_block(net)
        self.learners = [i for i in range(len(net)) if f"blocks.{i}" in self.optimizers]
        self.read = self.learners[1:] or self.learners
        if not skip_first:
            self.read = self.learners
        self.labels = self._labels(placement, label, neutral, like)
        shapes = nets.shapes(nn.Sequential(*list(net)[self.first :]), self.labels.written)
        each = [goodness] * len(self.learners) if isinstance(goodness, str | Goodness) else list(goodness)
        if len(each) != len(self.learners):
            raise UsageError(
                f"ForwardForward: {len(each)} kinds of goodness for {len(self.learners)} blocks that learn"
            )
        self.goodness = {i: goodness_of(kind) for i, kind in zip(self.learners, each, strict=True)}
        self.thresholds: dict[int, float] = {}
        self.heads = nn.ModuleDict()
        for i in self.learners:
            self._equip(i, shapes[i - self.first], threshold, like)
        if sleep:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def _claims(self, placement: str) -> Claims:
        """Those of these options; the patterns of "channel" are random, and stay as they are."""
        predicts = self.negatives == "hard"
        return replace(
            self.claims,
            later_blocks="all" if self.collaborate else "prediction" if predicts else "none",
            forward_lock=predicts or self.collaborate,
            training_only=self.peer != 0 or self.sleep > 0,
            same_net=placement != "channel",
        )

    def _labels(self, placement: str, label: float, neutral: float, like: Tensor) -> Labels:
        shape = tuple(n or 0 for n in self.problem.input_shape)
        layer = split(self.net[self.first])[0]
        shape = (prod(shape),) if isinstance(layer, nn.Linear) else shape
        labels = Labels(placement, shape, self.problem.outputs, label, neutral, self.generator, like)
        takes = inputs_of(layer)
        if takes != labels.written[0]:
            raise UsageError(
                f"ForwardForward: with placement={placement!r} inputs have {labels.written[0]} features or channels, "
                f"but the first layer takes {takes}; build the net for {labels.written[0]} or place the label otherwise"
            )
        return labels

    def _equip(self, i: int, shape: tuple[int, ...], threshold: float | None, like: Tensor) -> None:
        """The threshold, the peers' means and the head's slice of block i."""
        goodness, bounded = self.goodness[i], limited(self.net[i])
        reason = goodness.refuses(shape)
        if reason is not None:
            raise UsageError(f"ForwardForward: the goodness of block {i}: {reason}")
        own = goodness.threshold(shape, bounded if threshold is None else False)
        self.thresholds[i] = own if threshold is None else threshold * own
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
        i = first_block(net)
        layer = split(net[i])[0]
        if layer is None or not all(isinstance(m, nn.Flatten) for block in list(net)[:i] for m in leaves(block)):
            return "the label stands in the input, so the first block must begin with a linear or convolutional layer"
        shape = problem.input_shape
        if None in shape or (not isinstance(layer, nn.Linear) and len(shape) != 3):
            return (
                f"its first layer does not take inputs of shape {shape}; give the problem an input shape without gaps"
            )
        size = prod(n or 0 for n in shape) if isinstance(layer, nn.Linear) else int(shape[0] or 0)
        fits = {size, size + problem.outputs, 2 * size} if isinstance(layer, nn.Linear) else {size, size + 1}
        if inputs_of(layer) not in fits:
            return f"its first layer takes {inputs_of(layer)} features, but inputs have shape {shape}"
        if prod(n or 0 for n in shape) <= problem.outputs and inputs_of(layer) == size:
            return unfit("overlay", tuple(n or 0 for n in shape), problem.outputs)
        return None

    # Learning.

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """Hard negatives: predict, then blocks and head learn together. Uniform: blocks learn, then the head."""
        assert y is not None
        shared = self._share(x)
        if self.negatives == "hard":
            logits = self._logits(shared)
            rows, signs = self._contrast(y, hard_negatives(logits, y, self.generator))
            loss = self._sweep(shared, rows, signs, softmax_error(logits, y))
        else:
            rows, signs = self._contrast(y, uniform_negatives(y, self.problem.outputs, self.generator))
            loss = self._sweep(shared, rows, signs, None)
            shared = self._share(x)
            logits = self._logits(shared)
            self._sweep(shared, None, None, softmax_error(logits, y))
        return {"loss": loss, "head_loss": nn.functional.cross_entropy(logits, y)}

    def _contrast(self, y: Tensor, wrong: Tensor) -> tuple[Int64[Tensor, " rows"], Float[Tensor, "rows 1"]]:
        """The labels that the blocks learn from in this step, positives first, and +1 or -1 for each."""
        one = self.labels.codes.new_ones(len(y), 1)
        if not self.sleep:
            return torch.cat([y, wrong]), torch.cat([one, -one])
        steps = self.get_buffer("steps")
        asleep = bool((steps // self.sleep) % 2)
        steps += 1
        return (wrong, -one) if asleep else (y, one)

    def _sweep(self, shared: Shared, rows: Tensor | None, signs: Tensor | None, error: Tensor | None) -> Tensor:
        """All streams block by block; each block learns, and then its activities are dropped.

        rows, signs: the labels that the blocks learn from; None to leave the blocks alone.
        error: of the logits of the neutral stream, from which the head's slices learn; None to leave them alone.
        Returns the mean loss of the blocks.
        """
        losses = shared.product.new_zeros(())
        active = self._active()
        others = self._others(shared, rows) if self.collaborate and rows is not None else {}
        a: Shared | Tensor = shared
        quiet: Shared | Tensor = shared
        for i in range(self.first, len(self.net)):
            if error is not None and i <= self.read[-1]:
                quiet = self._normalised(self._respond(i, quiet, None)[1])
                if i in self.read:
                    self.heads[str(i)].weight.grad = error.t() @ quiet.flatten(1)
                    self.update(f"heads.{i}")
            if rows is not None and signs is not None and i <= active[-1]:
                with torch.set_grad_enabled(i in active):
                    z, h = self._respond(i, a, rows)
                    if i in active:
                        loss = self._loss(i, h, signs, others.get(i))
                        losses += loss.detach()
                        (loss - self._peers(i, z, h, signs)).backward()
                        del loss, z
                        self.update(f"blocks.{i}")
                a = self._normalised(h.detach())
        return losses / len(active)

    def _active(self) -> list[int]:
        """The places of the blocks that learn now."""
        if self.together:
            return self.learners
        return [self.learners[min(int(self.progress * len(self.learners)), len(self.learners) - 1)]]

    def progress_of(self, part: str) -> float:
        """One after another, each block has the whole schedule in its share of the run."""
        if self.together or part.startswith("heads"):
            return self.progress
        return min(1.0, max(0.0, self.progress * len(self.learners) - self.learners.index(int(part.split(".")[1]))))

    def _loss(self, i: int, h: Tensor, signs: Tensor, others: Tensor | None) -> Float[Tensor, ""]:
        """Of block i; the mean over rows, and over sites where a goodness has several."""
        goodness = self.goodness[i](h)
        if self.loss == "symba":
            positive, negative = goodness.chunk(2)
            return nn.functional.softplus((negative - positive) / self.temperature).mean()
        excess = goodness - self.thresholds[i]
        if others is not None:
            excess = excess + others
        return nn.functional.softplus(-signs * excess / self.temperature).mean()

    def _others(self, shared: Shared, rows: Tensor) -> dict[int, Float[Tensor, "rows 1"]]:
        """For each block the sum of the other blocks' goodness above their thresholds, for the same rows."""
        excess = {}
        a: Shared | Tensor = shared
        for i in range(self.first, self.learners[-1] + 1):
            h = self._respond(i, a, rows)[1]
            if i in self.learners:
                excess[i] = (self.goodness[i](h) - self.thresholds[i]).sum(1, keepdim=True)
            a = self._normalised(h)
        total = torch.stack(list(excess.values())).sum(0)
        return {i: total - own for i, own in excess.items()}

    def _peers(self, i: int, z: Tensor, h: Tensor, signs: Tensor) -> Tensor | float:
        """Peer normalisation: what a unit lacks to its peers' mean activity, times its mean activity on positives.

        Taken at z, before the activation, where that has the same shape: not gated by the activation's slope, so that a
        unit that is always off comes back.
        """
        batch = len(signs) if self.sleep else len(signs) // 2
        if not self.peer or bool(signs[0] < 0):
            return 0.0
        m = self.get_buffer(f"means_{i}")
        m.mul_(0.9).add_(h[:batch].detach().mean(0), alpha=0.1)
        pushed = z if z.shape == h.shape else h
        return (pushed[:batch].mean(0) * (m.mean() - m)).sum() * self.peer

    # The net.

    def _share(self, x: Tensor) -> Shared:
        """The first layer's products; its gradient is taken through them."""
        layer = split(self.net[self.first])[0]
        assert layer is not None
        with torch.set_grad_enabled(self.training or torch.is_grad_enabled()):
            return self.labels.share(layer, x)

    def _respond(self, i: int, a: Shared | Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Block i's response to its input: before and after what follows its affine layer.

        The first block's input is given by the products that all labels share and the labels; None: the neutral one.
        """
        layer, rest = split(self.net[i])
        if isinstance(a, Tensor):
            z = a if layer is None else layer(a)
        else:
            assert layer is not None
            if rows is None:
                rows = torch.full((len(a.product),), self.problem.outputs, device=a.product.device)
            z = self.labels.through(layer, a, rows, normalise=self.normalise)
        return z, rest(z)

    def _normalised(self, h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        return normalised(h) if self.normalise else h

    # Predictions.

    def _activities(self, shared: Shared, rows: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each block that is read: its place, its activities, and those normalised."""
        a: Shared | Tensor = shared
        for i in range(self.first, self.read[-1] + 1):
            h = self._respond(i, a, rows)[1]
            a = self._normalised(h)
            if i in self.read:
                yield i, h, a

    def _logits(self, shared: Shared) -> Float[Tensor, "batch classes"]:
        logits = shared.energy.new_zeros(len(shared.energy), self.problem.outputs)
        for i, _, a in self._activities(shared, None):
            logits = logits + self.heads[str(i)](a.flatten(1))
        return logits

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The head's logits: one pass with the neutral label."""
        return self._logits(self._share(x))

    def energy(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness of the blocks that are read, with each class as the label: one pass a class."""
        shared = self._share(x)
        energies = []
        for label in range(self.problem.outputs):
            rows = torch.full((len(x),), label, device=x.device)
            each = [self.goodness[i](h).sum(1) for i, h, _ in self._activities(shared, rows)]
            energies.append(torch.stack(each).sum(0))
        return torch.stack(energies, dim=1)

    def activities(self, x: Float[Tensor, "batch ..."], labels: Int64[Tensor, " batch"]) -> dict[int, Tensor]:
        """The activities h of every block that learns, by its place, on inputs with these labels."""
        found = {}
        a: Shared | Tensor = self._share(x)
        for i in range(self.first, self.learners[-1] + 1):
            h = self._respond(i, a, labels)[1]
            a = self._normalised(h)
            if i in self.learners:
                found[i] = h
        return found

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the head, which is `forward`, and by energy."""
        return {"head": self.forward, "energy": self.energy}


# The net's parts.


def split(block: nn.Module) -> tuple[nn.Module | None, nn.Sequential]:
    """A block as its affine layer and what follows; (None, the block) where it does not begin with one."""
    if type(block) in AFFINE:
        return block, nn.Sequential()
    if isinstance(block, nets.Block) and type(block.affine) in AFFINE:
        return block.affine, nn.Sequential(*(m for m in (block.norm, block.activation, block.pool) if m is not None))
    return None, nn.Sequential(block)


def inputs_of(layer: nn.Module | None) -> int:
    """How many features or channels an affine layer takes."""
    size = getattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", 0)
    return int(size)


def first_block(net: nn.Sequential) -> int:
    """The place of the first block with parameters."""
    return next(i for i, block in enumerate(net) if any(True for _ in block.parameters()))


def leaves(block: nn.Module) -> Sequence[nn.Module]:
    return [m for m in block.modules() if not list(m.children())]


def _check(**options: str) -> None:
    for name, value in options.items():
        if value not in CHOICES[name]:
            known = " or ".join(repr(choice) for choice in CHOICES[name])
            raise UsageError(f"ForwardForward: {name}={value!r} is not known; choose {known}")
