"""Recurrent forward-forward: image at the bottom, label at the top, and layers that settle between the two.

Hinton 2022 (arXiv 2212.13345), the section on modelling top-down effects. The net's blocks are the bottom-up half,
z = W_l a_{l-1} + b_l and the activation f; the rule owns the top-down weights V_l, from each layer to the one below and
from the label to the top one. All layers move at once, seeing their neighbours' normalised states of one step before:

    h_l(0) = f(W_l a_{l-1}(0) + b_l)                               one bottom-up pass, without a label
    h_l(t) = d h_l(t-1) + (1-d) f(W_l a_{l-1}(t-1) + b_l + V_l a_{l+1}(t-1)),    t = 1 ... T
    a_l(t) = N(h_l(t)),    N(h) = h / sqrt(mean h^2)               a_0 = N(image), a_{L+1} = N(one-hot label)
    G_l(t) = sum h_l(t)^2,    p_l(t) = sigmoid((G_l(t) - theta_l) / temperature)
    dW_l, dV_l = derivatives of the mean over t of BCE(p_l(t), positive or not), with all that is of t-1 held fixed

The right label makes the positive and a wrong one the negative, drawn in proportion to the class probabilities that a
softmax head gives after the bottom-up pass (logits = sum_l U_l a_l(0)). Predictions: the label with which the goodness,
summed over layers and averaged over the iterations 3 to 5, is highest (a relaxation a class), or the head's (one pass).

Departures from the paper:
1. One update a batch, from the mean of the iterations' losses, where the paper updates at every iteration. So the
   product of the first layer with the image is made once for all iterations and both labels, and so is its gradient, by
   the sum of the iterations' deltas; the same holds for the label at the top. States that no label has reached yet
   (the label comes down one layer an iteration) are computed once for both labels, or for all.
2. The paper does not say where the probabilities of "a single forward pass" come from: here from the head, whose
   slices U_l have an optimizer each, start at zero and have no bias.
3. theta_l is the layer's width, or half of it where activities cannot exceed 1.
4. Peer normalisation as in forward-forward's MATLAB code: on positives, unit j is pushed up by peer (mean_k m_k - m_j),
   with m the running mean of its activity, over the iterations of each batch. Off by default: with Adam, which is the
   default optimizer here, the net learns better without.
5. Blocks without parameters pass on what they get, on the way up; they have no state.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only.activity import TINY, lengths, limited, refused, softmax_error
from altprop.rules.forward_only.negatives import hard_negatives, uniform_negatives

CHUNK = 100
"""Samples whose states, one a class, are relaxed at once by `energy`: few enough to stay in the cache."""


class RecurrentForwardForward(Rule):
    """The recurrent net with a top-down label (Hinton 2022), for perceptrons without an output block.

    Arguments:
        iterations: T, synchronous steps of all layers in training.
        window: the first and the last iteration whose goodness counts in `energy`.
        damping: d, the share of its old state that a layer keeps.
        negatives: "hard" (drawn from the head's prediction without the true class) or "uniform" (any wrong class).
        label: strength of the label at the top; 1 gives it mean square 1, like any layer's normalised state.
        threshold: goodness a unit at which a layer is undecided; None: 1, or 0.5 where activities cannot exceed 1.
        temperature: what a difference in goodness is divided by.
        peer: strength of the peer normalisation; 0 for none.
        The others are those of `Rule`; the parts are "blocks.i", "downs.i" (the weights from above into block i) and
        "heads.i", for each place i of a block with a linear layer.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=False,
        memory="grows",
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
        iterations: int = 8,
        window: tuple[int, int] = (3, 5),
        damping: float = 0.3,
        negatives: str = "hard",
        label: float = 1.0,
        threshold: float | None = None,
        temperature: float = 1.0,
        peer: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        check_options(iterations, window, damping, negatives, label, temperature)
        self.iterations, self.window, self.damping = iterations, tuple(window), damping
        self.negatives, self.label, self.temperature, self.peer = negatives, label, temperature, peer
        self.claims = replace(self.claims, training_only=peer != 0)
        self.layers = layers(net)
        widths = [layer.affine.out_features for layer in self.layers]
        undecided = [(0.5 if limited(layer.rest) else 1.0) if threshold is None else threshold for layer in self.layers]
        self.thresholds = [share * width for share, width in zip(undecided, widths, strict=True)]
        self.downs, self.heads = nn.ModuleDict(), nn.ModuleDict()
        classes = self.problem.outputs
        for layer, width, above in zip(self.layers, widths, [*widths[1:], classes], strict=True):
            place, like = str(layer.place), layer.affine.weight
            self.downs[place] = nets.linear(above, width, "lecun", self.generator, bias=False).to(like)
            head: nn.Linear = nn.utils.skip_init(nn.Linear, width, classes, bias=False).to(like)
            nn.init.zeros_(head.weight)
            self.heads[place] = head
            self.add_part(f"downs.{place}", self.downs[place])
            self.add_part(f"heads.{place}", head)
            if peer:
                self.register_buffer(f"means_{place}", like.new_full((width,), 0.5))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := refused(net, problem)) is not None:
            return reason
        for i, block in enumerate(net):
            if linear(block) is None and any(True for _ in block.parameters()):
                return (
                    f"block {i} is more than a linear layer and an activation, and the input from above enters between "
                    "the two; build the net with nets.mlp"
                )
        found = layers(net)
        if found[-1].place != len(net) - 1:
            return "its last block has no weights, so that the label cannot enter there; leave that block out"
        features, shape = found[0].affine.in_features, problem.input_shape
        if found[0].place == 0 and features != prod(n or 0 for n in shape):
            return f"its first layer takes {features} features, but inputs have shape {shape}"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The head learns from the bottom-up pass; then the net relaxes with both labels and learns from that."""
        assert y is not None
        image, drive = self._look(x)
        start = self._ascend(drive)
        logits = self._logits(start)
        if self.negatives == "hard":
            wrong = hard_negatives(logits, y, self.generator)
        else:
            wrong = uniform_negatives(y, self.problem.outputs, self.generator)
        error = softmax_error(logits, y)
        for layer, a in zip(self.layers, start.a, strict=True):
            self.heads[str(layer.place)].weight.grad = error.t() @ a[0]
            self.update(f"heads.{layer.place}")
        loss = self._contrast(start, image, drive, self._codes(torch.stack([y, wrong])))
        return {"loss": loss, "head_loss": nn.functional.cross_entropy(logits, y)}

    def _contrast(
        self,
        state: "State",
        image: Float[Tensor, "1 batch inputs"],
        drive: Float[Tensor, "1 batch width"],
        codes: Float[Tensor, "2 batch classes"],
    ) -> Float[Tensor, ""]:
        """All iterations with the right label and the wrong one, then every layer's update; returns the mean loss."""
        label = self._down(-1)(codes)
        tallies = [self._tally(layer, h) for layer, h in zip(self.layers, state.h, strict=True)]
        for _ in range(self.iterations):
            fresh = State([], [])
            for i, layer in enumerate(self.layers):
                below, above, z = self._field(i, state, drive, label)
                h, norms, delta = self._respond(i, z, state.h[i], tallies[i])
                if below is not None:
                    accumulate(layer.affine.weight, delta, below)
                if above is not None:
                    accumulate(self._down(i).weight, delta, above)
                fresh.h.append(h)
                fresh.a.append(normalise(h, norms))
            state = fresh
        accumulate(self.layers[0].affine.weight, tallies[0].delta, image)
        accumulate(self._down(-1).weight, tallies[-1].delta, codes)
        for layer, tally in zip(self.layers, tallies, strict=True):
            self._write(layer, tally)
        return torch.stack([tally.loss for tally in tallies]).mean() / self.iterations

    def _respond(
        self, i: int, z: Float[Tensor, "streams batch width"], old: Float[Tensor, "_ batch width"], tally: "Tally"
    ) -> tuple[
        Float[Tensor, "streams batch width"], Float[Tensor, "streams batch"], Float[Tensor, "streams batch width"]
    ]:
        """Layer i's new state h, |h|, and the derivative of this iteration's loss by the layer's input z."""
        rest = self.layers[i].rest
        with torch.enable_grad():
            z.requires_grad_()
            f = rest(z.clone() if works_in_place(rest) else z)
        h = torch.lerp(f.detach(), old, self.damping)
        norms = lengths(h)
        s = (norms.square() - self.thresholds[i]) / self.temperature
        tally.loss.add_(contrast_loss(s))
        error = contrast_error(s) * (2 * (1 - self.damping) / (self.temperature * self.iterations))
        (delta,) = torch.autograd.grad(f, z, h * error.unsqueeze(2))
        if self.peer:
            tally.activity.add_(h[0].mean(0))
            delta[0] -= tally.pull  # past the activation's slope, so that a silent unit comes back
        tally.delta[: len(delta)] += delta
        return h, norms, delta

    def _tally(self, layer: "Layer", h: Float[Tensor, "1 batch width"]) -> "Tally":
        """An empty one, with the pull of the peers."""
        pull = h.new_zeros(h.size(2))
        if self.peer:
            m = self.get_buffer(f"means_{layer.place}")
            pull = (m.mean() - m) * (self.peer / (h.size(1) * self.iterations))
        return Tally(pull, h.new_zeros(2, *h.shape[1:]), h.new_zeros(h.size(2)), h.new_zeros(()))

    def _write(self, layer: "Layer", tally: "Tally") -> None:
        """The updates of one layer's parts."""
        bias = layer.affine.bias
        if bias is not None and bias.requires_grad:
            bias.grad = tally.delta.sum((0, 1))
        if self.peer:
            self.get_buffer(f"means_{layer.place}").mul_(0.9).add_(tally.activity, alpha=0.1 / self.iterations)
        if f"blocks.{layer.place}" in self.optimizers:
            self.update(f"blocks.{layer.place}")
        self.update(f"downs.{layer.place}")

    # The states. Streams are labels: 2 in training, one a class in `energy`, and 1 for what no label has reached.

    def _look(
        self, x: Float[Tensor, "batch ..."]
    ) -> tuple[Float[Tensor, "1 batch inputs"], Float[Tensor, "1 batch width"]]:
        """The normalised image, and what it contributes to the first layer's input at every iteration."""
        x = self.layers[0].passage(x).flatten(1).unsqueeze(0)
        x = normalise(x, lengths(x))
        return x, self.layers[0].affine(x)

    def _codes(self, labels: Shaped[Tensor, "streams batch"]) -> Float[Tensor, "streams batch classes"]:
        """One-hot labels, of mean square label^2."""
        classes = self.problem.outputs
        one_hot = nn.functional.one_hot(labels, classes).to(self.layers[0].affine.weight)
        codes: Tensor = one_hot * (self.label * classes**0.5)
        return codes

    def _ascend(self, drive: Float[Tensor, "1 batch width"]) -> "State":
        """h(0) and a(0)."""
        state = State([], [])
        for i, layer in enumerate(self.layers):
            z = layer.affine(layer.enter(state.a[-1])) if i else drive.clone()
            h = layer.rest(z)
            state.h.append(h)
            state.a.append(normalise(h, lengths(h)))
        return state

    def _field(
        self, i: int, state: "State", drive: Tensor, label: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """What layer i sees below and above, None for the image and the label, and its input z."""
        below = self.layers[i].enter(state.a[i - 1]) if i else None
        above = state.a[i + 1] if i + 1 < len(self.layers) else None
        up = drive if below is None else self.layers[i].affine(below)
        down = label if above is None else self._down(i)(above)
        return below, above, up + down

    def _down(self, i: int) -> nn.Linear:
        down = self.downs[str(self.layers[i].place)]
        assert isinstance(down, nn.Linear)
        return down

    def _relax(
        self, x: Float[Tensor, "batch ..."], codes: Float[Tensor, "streams rows classes"]
    ) -> Iterator[list[Float[Tensor, "streams batch width"]]]:
        """The layers' states h of one iteration after the other, without end."""
        drive = self._look(x)[1]
        state, label = self._ascend(drive), self._down(-1)(codes)
        while True:
            fresh = State([], [])
            for i, layer in enumerate(self.layers):
                h = torch.lerp(layer.rest(self._field(i, state, drive, label)[2]), state.h[i], self.damping)
                fresh.h.append(h)
                fresh.a.append(normalise(h, lengths(h)))
            state = fresh
            yield state.h

    # Predictions.

    def _logits(self, start: "State") -> Float[Tensor, "batch classes"]:
        slices = [self.heads[str(layer.place)](a[0]) for layer, a in zip(self.layers, start.a, strict=True)]
        return torch.stack(slices).sum(0)

    def head(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The head's logits: one bottom-up pass."""
        return self._logits(self._ascend(self._look(x)[1]))

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness with each class as the label, summed over layers and averaged over the window."""
        return torch.cat([self._energy(part) for part in x.split(CHUNK)])

    def _energy(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        first, last = self.window
        classes = self.problem.outputs
        codes = self._codes(torch.arange(classes, device=x.device).unsqueeze(1))
        energy = x.new_zeros(classes, len(x))
        for h in islice(self._relax(x, codes), first - 1, last):
            for state in h:
                energy = energy + lengths(state).square()
        return energy.t() / (last - first + 1)

    def states(
        self, x: Float[Tensor, "batch ..."], label: Shaped[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch width"]]:
        """Each layer's state h after all iterations with these labels: what the net believes it sees."""
        relaxed = islice(self._relax(x, self._codes(label.unsqueeze(0))), self.iterations - 1, None)
        return [h[0] for h in next(relaxed)]

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By energy, which is `forward`, and by the head."""
        return {"energy": self.forward, "head": self.head}


class State(NamedTuple):
    """All layers at one moment: h, and a = N(h)."""

    h: list[Float[Tensor, "streams batch width"]]
    a: list[Float[Tensor, "streams batch width"]]


# One layer.


class Layer(NamedTuple):
    """A block with weights: its place in the net, the blocks without weights before it, and its own two halves."""

    place: int
    passage: nn.Sequential
    affine: nn.Linear
    rest: nn.Sequential

    def enter(self, a: Float[Tensor, "streams batch below"]) -> Float[Tensor, "streams batch inputs"]:
        """The state of the layer below as this one sees it."""
        if not len(self.passage):
            return a
        inputs: Tensor = self.passage(a.flatten(0, 1)).unflatten(0, a.shape[:2])
        return inputs


class Tally(NamedTuple):
    """What one layer collects over the iterations.

    pull: peer normalisation's part of dL/dz, for each positive at each iteration.
    delta: dL/dz, summed, with what both labels share in the first stream.
    activity: the positives' mean activity, summed; loss: summed.
    """

    pull: Float[Tensor, " width"]
    delta: Float[Tensor, "2 batch width"]
    activity: Float[Tensor, " width"]
    loss: Float[Tensor, ""]


def layers(net: nn.Sequential) -> list[Layer]:
    """The blocks with a linear layer, in a row."""
    found: list[Layer] = []
    passage: list[nn.Module] = []
    for place, block in enumerate(net):
        affine = linear(block)
        if affine is None:
            passage.append(block)
            continue
        rest = (block.norm, block.activation) if isinstance(block, nets.Block) else ()
        found.append(Layer(place, nn.Sequential(*passage), affine, nn.Sequential(*(m for m in rest if m is not None))))
        passage = []
    return found


def linear(block: nn.Module) -> nn.Linear | None:
    """The linear layer of a block that is nothing more than a linear layer, a normalisation and an activation."""
    affine = nets.affine(block)
    if type(affine) is not nn.Linear or (isinstance(block, nets.Block) and block.pool is not None):
        return None
    return affine if len(list(block.parameters())) == len(list(affine.parameters())) else None


def works_in_place(rest: nn.Sequential) -> bool:
    return any(getattr(m, "inplace", False) for m in rest.modules())


# Goodness, its loss, and derivatives.


def normalise(
    h: Float[Tensor, "streams batch width"], norms: Float[Tensor, "streams batch"]
) -> Float[Tensor, "streams batch width"]:
    """N(h) = h / sqrt(mean h^2), given |h|; a row of zeros stays one."""
    scale: Tensor = h.size(2) ** 0.5 / norms.clamp_min(TINY)
    return h * scale.unsqueeze(2)


def contrast_loss(s: Float[Tensor, "streams batch"]) -> Float[Tensor, ""]:
    """BCE with logits s: s[0] is of positives and s[-1] of negatives (the same where no label has arrived)."""
    return 0.5 * (nn.functional.softplus(-s[0]).mean() + nn.functional.softplus(s[-1]).mean())


def contrast_error(s: Float[Tensor, "streams batch"]) -> Float[Tensor, "streams batch"]:
    """dL/ds of `contrast_loss`."""
    p = torch.sigmoid(s)
    error = torch.stack([p[0] - 1, p[-1]]) / (2 * s.size(1))
    return error.sum_to_size(s.shape)


def accumulate(
    weight: Tensor, delta: Float[Tensor, "streams batch width"], inputs: Float[Tensor, "streams_in batch inputs"]
) -> None:
    """weight.grad += delta^T inputs; deltas of streams that share one input are summed first."""
    if not weight.requires_grad:
        return
    delta = delta.sum_to_size(*inputs.shape[:2], delta.size(2)).flatten(0, 1)
    if weight.grad is None:
        weight.grad = delta.t() @ inputs.flatten(0, 1)
    else:
        weight.grad.addmm_(delta.t(), inputs.flatten(0, 1))


def check_options(
    iterations: int, window: tuple[int, int], damping: float, negatives: str, label: float, temperature: float
) -> None:
    """Raise UsageError unless these make sense."""
    where = "RecurrentForwardForward"
    if negatives not in ("hard", "uniform"):
        raise UsageError(f"{where}: negatives={negatives!r} is not known; choose 'hard' or 'uniform'")
    if not 0 <= damping < 1:
        raise UsageError(f"{where}: damping={damping} must be at least 0 and below 1, or no state would ever move")
    if temperature <= 0:
        raise UsageError(f"{where}: temperature={temperature} must be positive")
    if label <= 0:
        raise UsageError(f"{where}: label={label} makes all classes look alike; give more than 0")
    if iterations < 1:
        raise UsageError(f"{where}: iterations={iterations} must be at least 1")
    if not 1 <= window[0] <= window[1]:
        raise UsageError(f"{where}: window={window} must be the first and the last iteration that counts, from 1 on")
