"""Forward-forward that draws: what its discriminator learns from its own drawings, a linear generator reads back.

Hinton 2022 (arXiv 2212.13345), section 6.2. Every block of the discriminator decides by itself whether an image with
its label is positive, so no derivative goes through it; the generator has no hidden representations of its own, only
linear maps from the discriminator's. Images x with a label y over their first entries; blocks F_l; N(h) has the
direction of h and mean square 1:

    a_0 = N(x, y),  h_l = F_l(a_{l-1}),  a_l = N(h_l)
    p_l = sigmoid((g(h_l) - theta_l) / T)        g: the goodness
    L_l = BCE(p_l, positive or not)              dW_l = dL_l/dW_l with a_{l-1} held fixed
    x^ = sigmoid(D_1 a_1 + d_1),  a^_{l-1} = D_l a_l + d_l
    dD_1 = (x^ - x) a_1^T,  dD_l = (a^_{l-1} - a_{l-1}) a_l^T           on positives: the delta rule, of one layer each

Positives are images with their labels. Negatives are the net's own drawings with the label asked for, and images with
wrong labels. A drawing of class c begins with activity of block s, as Gaussian as a memory of it says: of the last n
positives of the class, whose activities are a^1 ... a^n,

    a_s = N(relu(sum_k w_k a^k)),  w_k = 1/n + (e_k - mean e) / sqrt(n),  e_k ~ N(0, 1)

has their mean and their covariance. The decoders take it down to an image (activity between them becomes
N(relu(a^_l)); no relu in blocks without one). Then, a few times, the image and its label
go up to block s and down again; and of several candidates the one stays whose label leads the others by most energy,
sum_{l >= 2} g(h_l). Prediction: the label of the highest energy (one pass a class).

Departures from the paper, which has neither experiments nor equations on this:
1. What the generator starts from is ours: the discriminator's own activity, sampled from its statistics by class.
2. A share of the negatives are images with wrong labels, so that the discriminator also classifies.
3. While it learns, the net draws one candidate each and does not send it up again: a quarter of the work.
4. Blocks without trainable parameters pass on what they get.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule
from altprop.rules.forward_only.activity import limited, normalised, refused
from altprop.rules.forward_only.goodness import Goodness
from altprop.rules.forward_only.goodness import goodness as goodness_of
from altprop.rules.forward_only.negatives import same_rows, uniform_negatives

OPTIMIZERS: dict[str, OptimizerFactory] = {
    "blocks": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-2, fused=True),
    "decoders": partial(torch.optim.Adam, lr=1e-3, fused=True),
}
"""For batches of about 50, with rates that fall to zero in the second half (`schedules.hold_then_fall`)."""


class GenerativeForwardForward(Rule):
    """A forward-forward discriminator with a generator of linear maps (after Hinton 2022, section 6.2), on flat inputs.

    Arguments:
        goodness: a name in `goodness.GOODNESS`, or an instance.
        threshold: theta in units of the goodness's own for ReLU; None: 1, or less where activities cannot exceed 1.
        temperature: T, what a difference in goodness is divided by.
        label: the value that stands at the label's place; the other classes' places are 0.
        dreams: share of the negatives that are the net's own drawings; the rest are images with wrong labels.
        memory: how many activities of each class are remembered.
        source: the place of the block whose activity a drawing begins with; None: the first that learns.
        The others are those of `Rule`; the parts are "blocks.0", ... and "decoders.0", ... up to the source.

    Inputs are taken as intensities: drawings lie in [0, 1].
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
    activities: Float[Tensor, "classes memory width"]
    seen: Int[Tensor, " classes"]

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        goodness: str | Goodness = "sum-of-squares",
        threshold: float | None = None,
        temperature: float = 1.0,
        label: float = 2.0,
        dreams: float = 0.25,
        memory: int = 512,
        source: int | None = None,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.learners = [i for i in range(len(net)) if f"blocks.{i}" in self.optimizers]
        source = self.learners[0] if source is None else source
        _check(temperature, label, dreams, memory, source, self.learners)
        self.goodness = goodness_of(goodness)
        self.temperature, self.label, self.dreams, self.source = temperature, label, dreams, source
        if source != self.learners[0]:
            self.claims = replace(self.claims, later_blocks="all")
        self.read = self.learners[1:] or self.learners
        shapes = nets.shapes(net, self.problem.input_shape)
        like = next(net.parameters())
        self.thresholds = {}
        self.decoders = nn.ModuleDict()
        below = prod(n or 0 for n in self.problem.input_shape)
        for i in self.learners:
            if (reason := self.goodness.refuses(shapes[i])) is not None:
                raise UsageError(f"GenerativeForwardForward: block {i}: {reason}")
            own = self.goodness.threshold(shapes[i], limited(net[i]) if threshold is None else False)
            self.thresholds[i] = own if threshold is None else threshold * own
            if i <= source:
                self.decoders[str(i)] = decoder = blank(prod(shapes[i]), below).to(like)
                self.add_part(f"decoders.{i}", decoder)
                below = prod(shapes[i])
        self.register_buffer("activities", like.new_zeros(self.problem.outputs, memory, below))
        self.register_buffer("seen", torch.zeros(self.problem.outputs, dtype=torch.int64, device=like.device))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if any(isinstance(m, nn.modules.conv._ConvNd) for m in net.modules()):
            return "its generator maps whole layers to whole layers, so it takes no convolutions; use nets.mlp"
        if (reason := refused(net, problem)) is not None:
            return reason
        size = None if None in problem.input_shape else prod(n or 0 for n in problem.input_shape)
        layer = next(m for m in net.modules() if any(True for _ in m.parameters(recurse=False)))
        if size is None or not isinstance(layer, nn.Linear) or layer.in_features != size:
            return f"its first layer does not take all features of inputs of shape {problem.input_shape}; use nets.mlp"
        if size <= problem.outputs:
            return f"{problem.outputs} classes written over {size} input features leave no input; give more features"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """Block by block: the discriminator's from positives and negatives, then its decoder from positives."""
        assert y is not None
        x = x.flatten(1)
        dreamt = round(self.dreams * len(x))
        drawings = self._down(self._imagine(y[:dreamt], self.generator))
        wrong = uniform_negatives(y, self.problem.outputs, self.generator)
        copies = same_rows(drawings, x[:dreamt])  # a drawing that is the image itself would be the positive
        wrong[:dreamt] = torch.where(copies, wrong[:dreamt], y[:dreamt])
        labels = torch.cat([y, wrong])
        a = write(torch.cat([x, drawings, x[dreamt:]]), labels, self.problem.outputs, self.label)
        losses, errors, below = x.new_zeros(()), x.new_zeros(()), x
        for i, block in enumerate(self.net):
            if i not in self.learners:
                a = normalised(block(a))
                continue
            h, loss = self._contrast(i, a)
            losses += loss
            a = normalised(h)
            if i <= self.source:
                errors += self._decode(i, a[: len(x)].flatten(1), below)
                below = a[: len(x)].flatten(1)
            if i == self.source:
                self._remember(below, y)
                below = x  # nothing of this block is kept for later ones
        return {"loss": losses / len(self.learners), "generator_loss": errors / len(self.decoders)}

    def _contrast(self, i: int, a: Float[Tensor, "rows ..."]) -> tuple[Tensor, Tensor]:
        """One step of a block from positives, then as many negatives; its activities, and its loss."""
        with torch.enable_grad():
            h = self.net[i](a)
            s = (self.goodness(h) - self.thresholds[i]) / self.temperature
            positive, negative = s.chunk(2)
            loss = nn.functional.softplus(torch.cat([-positive, negative])).mean()
        loss.backward()
        self.update(f"blocks.{i}")
        return h.detach(), loss.detach()

    def _decode(self, i: int, a: Float[Tensor, "batch units"], target: Float[Tensor, "batch below"]) -> Tensor:
        """One step of a decoder by the delta rule; its mean squared error."""
        decoder = self.decoders[str(i)]
        error = self._read_out(i, a) - target
        decoder.weight.grad = error.t() @ a / len(a)
        decoder.bias.grad = error.mean(0)
        self.update(f"decoders.{i}")
        return error.square().mean()

    def _remember(self, a: Float[Tensor, "batch units"], y: Shaped[Tensor, " batch"]) -> None:
        """Each class's place for its next activity goes round; of a batch larger than the memory the last stay."""
        member = nn.functional.one_hot(y, self.problem.outputs)
        count, size = member.sum(0), self.activities.size(1)
        rank = member.cumsum(0).gather(1, y.unsqueeze(1)).squeeze(1) - 1
        kept = rank >= count[y] - size
        self.activities[y[kept], ((self.seen[y] + rank) % size)[kept]] = a[kept]
        self.seen += count

    # Drawing.

    @torch.no_grad()
    def draw(
        self,
        labels: Int[Tensor, " drawings"],
        generator: torch.Generator,
        *,
        rounds: int = 3,
        candidates: int = 8,
    ) -> Float[Tensor, "drawings ..."]:
        """Images of the classes asked for, (drawings, *input_shape) with values in [0, 1].

        Arguments:
            labels: one class a drawing.
            generator: where the random numbers come from (on the CPU).
            rounds: how often a drawing goes up to the source with its label, and down again.
            candidates: of so many, the one is given back whose label leads the others by most energy.

        Raises UsageError for a class of which nothing has been learned.
        """
        if rounds < 0 or candidates < 1:
            raise UsageError(
                f"draw(rounds={rounds}, candidates={candidates}): give no round or more, one candidate or more"
            )
        unknown = [int(c) for c in labels.unique() if not 0 <= c < len(self.seen) or self.seen[c] == 0]
        if unknown:
            raise UsageError(
                f"draw(labels): nothing has been learned of class {unknown[0]}; train on it before drawing it"
            )
        labels = labels.to(self.seen.device)
        wanted = labels.repeat(candidates)
        x = self._down(self._imagine(wanted, generator))
        for _ in range(rounds):
            x = self._down(self._up(x, wanted))
        if candidates > 1:
            energy = self.energy(x)
            own = energy.gather(1, wanted.unsqueeze(1)).squeeze(1)
            lead = own - energy.scatter(1, wanted.unsqueeze(1), -torch.inf).amax(1)
            x = x.view(candidates, len(labels), -1)[lead.view(candidates, -1).argmax(0), torch.arange(len(labels))]
        return x.view(-1, *(n or 0 for n in self.problem.input_shape))

    def _imagine(self, labels: Shaped[Tensor, " rows"], generator: torch.Generator) -> Float[Tensor, "rows units"]:
        """Activity of the source for each label, from the Gaussian of what is remembered of its class."""
        size = self.activities.size(1)
        e = torch.randn(len(labels), size, dtype=self.activities.dtype, generator=generator).to(self.activities)
        w = gaussian_weights(e, self.seen[labels].clamp(1, size))
        order = labels.argsort(stable=True)
        rows = order.split(labels.bincount(minlength=self.problem.outputs).tolist())
        a = w.new_empty(len(labels), self.activities.size(2))
        for memory, mine in zip(self.activities, rows, strict=True):
            a[mine] = w[mine] @ memory
        return self._possible(self.source, a)

    def _possible(self, i: int, a: Float[Tensor, "rows units"]) -> Float[Tensor, "rows units"]:
        """What comes nearest to `a` among the activities that block i can have."""
        rectified = any(isinstance(m, nn.ReLU) for m in self.net[i].modules())
        return normalised(a.relu() if rectified else a)

    def _down(self, a: Float[Tensor, "rows units"]) -> Float[Tensor, "rows inputs"]:
        """From the source's activity to an image, decoder by decoder."""
        for i in reversed(self.learners[: len(self.decoders)]):
            if i != self.source:
                a = self._possible(i, a)
            a = self._read_out(i, a)
        return a

    def _read_out(self, i: int, a: Float[Tensor, "rows units"]) -> Float[Tensor, "rows below"]:
        """What one decoder makes of its block's activity: intensities, or the activity below."""
        out: Tensor = self.decoders[str(i)](a)
        return out.sigmoid_() if i == self.learners[0] else out

    def _up(self, x: Float[Tensor, "rows inputs"], labels: Shaped[Tensor, " rows"]) -> Float[Tensor, "rows units"]:
        """The source's activity on images with these labels."""
        a = write(x, labels, self.problem.outputs, self.label)
        for block in list(self.net)[: self.source + 1]:
            a = normalised(block(a))
        return a.flatten(1)

    # Predictions.

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The energy of each class."""
        return self.energy(x)

    def energy(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness of all blocks but the first, with each class as the label: one pass a class."""
        x = x.flatten(1)
        found = [self._energy_of(x, x.new_full((len(x),), c, dtype=torch.int64)) for c in range(self.problem.outputs)]
        return torch.stack(found, dim=1)

    def _energy_of(self, x: Float[Tensor, "batch inputs"], labels: Shaped[Tensor, " batch"]) -> Tensor:
        a, total = write(x, labels, self.problem.outputs, self.label), x.new_zeros(len(x))
        for i, block in enumerate(list(self.net)[: self.read[-1] + 1]):
            h = block(a)
            if i in self.read:
                total = total + self.goodness(h).sum(1)
            a = normalised(h)
        return total

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By energy, which is `forward`."""
        return {"energy": self.energy}


def write(
    x: Float[Tensor, "rows inputs"], labels: Shaped[Tensor, " rows"], classes: int, value: float
) -> Float[Tensor, "rows inputs"]:
    """Labels over the first entries of the inputs, and the whole at mean square 1."""
    code = x.new_zeros(len(x), classes).scatter(1, labels.unsqueeze(1), value)
    return normalised(torch.cat([code, x[:, classes:]], dim=1))


def gaussian_weights(e: Float[Tensor, "rows memory"], n: Shaped[Tensor, " rows"]) -> Float[Tensor, "rows memory"]:
    """w with which sum_k w_k a^k has the mean and the covariance of the first n of the a^k, for e_k ~ N(0, 1).

    Since sum_k w_k a^k = mean a + sum_k e_k (a^k - mean a) / sqrt(n).
    """
    n = n.unsqueeze(1)
    held = torch.arange(e.size(1), device=e.device) < n
    e = e * held
    return held * (1 / n + (e - e.sum(1, keepdim=True) / n) / n.sqrt())


def blank(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer of zeros."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check(temperature: float, label: float, dreams: float, memory: int, source: int, learners: list[int]) -> None:
    """Raise UsageError for options that make no sense."""
    if temperature <= 0:
        raise UsageError(f"GenerativeForwardForward: temperature={temperature} must be positive")
    if label <= 0:
        raise UsageError(f"GenerativeForwardForward: label={label} makes all classes look alike; give more than 0")
    if not 0 <= dreams <= 1:
        raise UsageError(f"GenerativeForwardForward: dreams={dreams} is a share of the negatives; give it in [0, 1]")
    if memory < 2:
        raise UsageError(f"GenerativeForwardForward: memory={memory} activities have no covariance; remember 2 or more")
    if source not in learners:
        raise UsageError(f"GenerativeForwardForward: source={source} is no block that learns; choose one of {learners}")
