"""Forward-forward: each block learns by itself to be active for the right label and quiet for a wrong one.

Hinton 2022 (arXiv 2212.13345), supervised, after the recipe of his MATLAB code. The label is written over the first
entries of the input x: the true one (positive), a wrong one (negative), or 0.1 in all of them (neutral). Then

    a_0 = N(x),  h_l = F_l(a_{l-1}),  a_l = N(h_l)        N(h) = h / sqrt(mean h^2)
    G_l = sum h_l^2,  p_l = sigmoid((G_l - theta_l) / T)   goodness, and what block l believes to be positive
    L_l = BCE(p_l, positive or not)                        dW_l = dL_l/dW_l with a_{l-1} held fixed
    logits = sum_{l >= 2} V_l a_l  of the neutral input    dV_l = dCE(logits, y)/dV_l with a_l held fixed

Peer normalisation: on positives, unit j is pushed up by peer (mean_k m_k - m_j), with m the running mean of h.
Predictions: the head's logits (one pass), or the label with the highest energy sum_{l >= 2} G_l (one pass a class).

Departures from the paper:
1. Each block has its own slice V_l of the softmax, with its own optimizer, so that no list of activities is kept.
   V_l starts at zero and has no bias: the activities have a fixed length and are not centred.
2. With one hidden block, head and energy read that one, though it sees the label: there is no other.
3. theta_l is the block's width, as in the MATLAB code, but half of it where activities cannot exceed 1.
4. Blocks without trainable parameters pass on what they get: they have no goodness and no slice.
5. By default the label is written as 2 and not as 1, batches are smaller (50), peers push less (0.01, not 0.03), and
   weights decay faster: in few epochs this came out better on validation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerSpec, Problem, Rule

SGD: OptimizerSpec = {
    "blocks": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-2, fused=True),
    "heads": partial(torch.optim.SGD, lr=5e-3, momentum=0.9, weight_decay=3e-3, fused=True),
}
"""For batches of about 50, with a rate that falls to zero in the second half (`schedules.hold_then_fall`)."""

BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign, nn.LayerNorm)
TINY = 1e-12
"""Below this length a vector counts as zero, and its normalised form is zero."""


class ForwardForward(Rule):
    """The forward-forward algorithm (Hinton 2022), supervised, on flat inputs.

    Arguments:
        negatives: "hard" (drawn from the head's prediction without the true class) or "uniform" (any wrong class).
        threshold: goodness a unit at which a block is undecided; None: 1, or 0.5 where activities cannot exceed 1.
        temperature: T, what a difference in goodness is divided by.
        label: the value that stands at the label's place; the other classes' places are 0.
        neutral: the value at all classes' places where no label is given.
        peer: strength of the peer normalisation; 0 for none.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.1", ... (see `read`).

    Attributes:
        read: the places of the blocks that head and energy read.
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
        negatives: str = "hard",
        threshold: float | None = None,
        temperature: float = 1.0,
        label: float = 2.0,
        neutral: float = 0.1,
        peer: float = 0.01,
        optimizer: OptimizerSpec = SGD,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        if negatives not in ("hard", "uniform"):
            raise UsageError(f"ForwardForward: negatives={negatives!r} is not known; choose 'hard' or 'uniform'")
        if temperature <= 0:
            raise UsageError(f"ForwardForward: temperature={temperature} must be positive")
        self.negatives, self.temperature, self.peer = negatives, temperature, peer
        self.label, self.neutral = label, neutral
        hard = negatives == "hard"
        self.claims = replace(
            self.claims, later_blocks="prediction" if hard else "none", forward_lock=hard, training_only=peer != 0
        )
        self.first = first_block(net)
        learners = [i for i in range(len(net)) if f"blocks.{i}" in self.optimizers]
        self.read = learners[1:] or learners
        self.thresholds = {}
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape)
        like = next(net.parameters())
        for i in learners:
            width = prod(shapes[i])
            self.thresholds[i] = width * (default_threshold(net[i]) if threshold is None else threshold)
            if peer:
                self.register_buffer(f"means_{i}", like.new_full(shapes[i], 0.5))
            if i in self.read:
                head = nn.utils.skip_init(nn.Linear, width, self.problem.outputs, bias=False).to(like)
                self.heads[str(i)] = head
                nn.init.zeros_(head.weight)
                self.add_part(f"heads.{i}", head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression" or problem.outputs < 2:
            return "it contrasts right labels with wrong ones, so it needs two classes or more; choose another rule"
        if any(isinstance(m, nn.modules.conv._ConvNd) for m in net.modules()):
            return "convolutional blocks: not yet; build the net with nets.mlp"
        if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
            return "batch statistics would mix positive and negative samples; use layer normalisation (norm=True)"
        if nets.output_layer(net) is not None:
            return "it ends in an output block, whose scores would be trained as features; build it without classes"
        if not any(p.requires_grad for p in net.parameters()):
            return "no block has trainable parameters; set requires_grad on some"
        i = first_block(net)
        layer = split(net[i])[0]
        if layer is None or not all(isinstance(m, nn.Flatten) for block in list(net)[:i] for m in leaves(block)):
            return "the label is written into the input, so the first block must begin with a linear layer"
        if None in problem.input_shape or layer.in_features != prod(n or 0 for n in problem.input_shape):
            return f"its first layer takes {layer.in_features} features, but inputs have shape {problem.input_shape}"
        if layer.in_features <= problem.outputs:
            return (
                f"{problem.outputs} classes written over {layer.in_features} input features leave no input; "
                "give more features"
            )
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """Hard negatives: predict, then blocks and head learn together. Uniform: blocks learn, then the head."""
        assert y is not None
        x = x.flatten(1)
        product = self._shared_product(x)
        neutral, positive = self._neutral(x), self._labelled(x, y)
        if self.negatives == "hard":
            logits = self._logits(x, neutral, product)
            negative = self._labelled(x, hard_negatives(logits, y, self.generator))
            codes = torch.cat([positive, negative, neutral])
            loss = self._sweep(write(codes, x), product, 2 * len(x), softmax_error(logits, y))
        else:
            negative = self._labelled(x, uniform_negatives(y, self.problem.outputs, self.generator))
            loss = self._sweep(write(torch.cat([positive, negative]), x), product, 2 * len(x), None)
            product = self._shared_product(x)
            logits = self._logits(x, neutral, product)
            self._sweep(write(neutral, x), product, 0, softmax_error(logits, y))
        return {"loss": loss, "head_loss": nn.functional.cross_entropy(logits, y)}

    def _sweep(self, streams: "Streams", product: Tensor, contrasted: int, error: Tensor | None) -> Tensor:
        """All streams block by block; each block learns, and then its activities are dropped.

        contrasted: how many rows, positives then negatives, the blocks learn from; the rows after them are neutral.
        error: of the logits of the neutral rows, from which the head's slices learn; None to leave them alone.
        Returns the mean loss of the blocks.
        """
        losses, a = product.new_zeros(()), product
        for i, block in list(enumerate(self.net))[self.first :]:
            layer, rest = split(block)
            learns = contrasted > 0 and f"blocks.{i}" in self.optimizers
            z = a if layer is None else streams.through(layer, product) if i == self.first else layer(a)
            response = respond(layer, rest, z, learns)
            norms = lengths(response.h)
            if learns:
                s = (norms[:contrasted].square() - self.thresholds[i]) / self.temperature
                losses += contrast_loss(s)
                delta = self._pull_back(i, layer, response, s)
                if layer is not None:
                    inputs = streams if i == self.first else a
                    fill_gradients(layer, inputs, delta)
                self.update(f"blocks.{i}")
                del delta
            a = normalise(response.h, norms, in_place=response.by_hand)
            if error is not None and i in self.read:
                self.heads[str(i)].weight.grad = error.t() @ a[-len(error) :].flatten(1)
                self.update(f"heads.{i}")
        return losses / len(self.thresholds)

    def _pull_back(self, i: int, layer: nn.Linear | None, response: "Response", s: Tensor) -> Tensor:
        """dL/dz of the contrasted rows, peers included; fills the gradients of what follows the linear layer."""
        h = response.h[: len(s)]
        batch = len(s) // 2
        pull = self._peers(i, h[:batch])
        direction = h * goodness_error(s, self.temperature).view(-1, *[1] * (h.dim() - 1))
        straight = layer is not None and response.z.shape[1:] == h.shape[1:]
        if not straight:
            direction[:batch] -= pull
        delta = response.backward(direction, through_z=layer is not None)
        if straight:  # not gated by the activation's slope, so that a unit that is always off comes back
            delta[:batch] -= pull
        return delta

    def _peers(self, i: int, positive: Tensor) -> Tensor | float:
        """Peer normalisation: what a unit lacks to its peers' mean activity, a sample."""
        if not self.peer:
            return 0.0
        m = self.get_buffer(f"means_{i}")
        m.mul_(0.9).add_(positive.mean(0), alpha=0.1)
        return (m.mean() - m) * (self.peer / len(positive))

    # Labels in the input, and the first layer, whose product with the pixels all streams share.

    def _neutral(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        return x.new_full((len(x), self.problem.outputs), self.neutral)

    def _labelled(self, x: Tensor, y: Tensor) -> Float[Tensor, "batch classes"]:
        return x.new_zeros(len(x), self.problem.outputs).scatter_(1, y.unsqueeze(1), self.label)

    def _shared_product(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch width"]:
        layer = split(self.net[self.first])[0]
        assert layer is not None
        classes = self.problem.outputs
        return x[:, classes:] @ layer.weight[:, classes:].t()

    # Predictions.

    def _activities(self, x: Tensor, codes: Tensor, product: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each block that is read: its place, the lengths of its activities, and those normalised."""
        a = product
        for i, block in list(enumerate(self.net))[self.first : self.read[-1] + 1]:
            if i == self.first:
                layer, rest = split(block)
                assert layer is not None
                h = rest(write(codes, x).through(layer, product))
            else:
                h = block(a)
            norms = lengths(h)
            a = normalise(h, norms)
            if i in self.read:
                yield i, norms, a

    def _logits(self, x: Tensor, codes: Tensor, product: Tensor) -> Float[Tensor, "batch classes"]:
        logits = x.new_zeros(codes.shape)
        for i, _, a in self._activities(x, codes, product):
            logits = logits + self.heads[str(i)](a.flatten(1))
        return logits

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The head's logits: one pass with the neutral label."""
        x = x.flatten(1)
        return self._logits(x, self._neutral(x), self._shared_product(x))

    def energy(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The goodness of the blocks that are read, with each class as the label: one pass a class."""
        x = x.flatten(1)
        product = self._shared_product(x)
        energies = []
        for label in range(self.problem.outputs):
            codes = self._labelled(x, torch.full((len(x),), label, device=x.device))
            energies.append(sum(norms.square() for _, norms, _ in self._activities(x, codes, product)))
        return torch.stack([torch.as_tensor(e) for e in energies], dim=1)

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the head, which is `forward`, and by energy."""
        return {"head": self.forward, "energy": self.energy}


# Goodness, its loss, and normalisation.


def lengths(h: Float[Tensor, "rows ..."]) -> Float[Tensor, " rows"]:
    """|h|; its square is the goodness G."""
    norms: Tensor = torch.linalg.vector_norm(h.flatten(1), dim=1)
    return norms


def normalise(
    h: Float[Tensor, "rows ..."], norms: Float[Tensor, " rows"], *, in_place: bool = False
) -> Float[Tensor, "rows ..."]:
    """N(h) = h / sqrt(mean h^2), given |h|; a row of zeros stays one."""
    scale = (h[0].numel() ** 0.5 / norms.clamp_min(TINY)).view(-1, *[1] * (h.dim() - 1))
    return h.mul_(scale) if in_place else h * scale


def contrast_loss(s: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """BCE with logits s: the first half of the rows is positive, the second negative."""
    positive, negative = s.chunk(2)
    return nn.functional.softplus(torch.cat([-positive, negative])).mean()


def goodness_error(s: Float[Tensor, " rows"], temperature: float) -> Float[Tensor, " rows"]:
    """e with dL/dh = e h: (p - 1) / (T b) on positives and p / (T b) on negatives, for b of each."""
    p = torch.sigmoid(s)
    p[: len(s) // 2] -= 1
    return p.mul_(2 / (len(s) * temperature))


def softmax_error(
    logits: Float[Tensor, "batch classes"], y: Shaped[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """dCE/dlogits."""
    error = logits.softmax(1)
    return error.sub_(nn.functional.one_hot(y, logits.size(1))).div_(len(y))


# Negatives.


def hard_negatives(
    logits: Float[Tensor, "batch classes"], y: Shaped[Tensor, " batch"], generator: torch.Generator
) -> Shaped[Tensor, " batch"]:
    """Wrong labels, drawn from softmax(logits) without the true class.

    By exponential races (the smallest e_k / p_k wins, in logarithms): the true class, struck out after the draw,
    cannot win however sure the head is of it.
    """
    noise = torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=generator)
    race = logits - noise.clamp_min_(torch.finfo(logits.dtype).tiny).log_().to(logits.device)
    return race.scatter_(1, y.unsqueeze(1), -torch.inf).argmax(1)


def uniform_negatives(
    y: Shaped[Tensor, " batch"], classes: int, generator: torch.Generator
) -> Shaped[Tensor, " batch"]:
    """Wrong labels, all alike."""
    return (y + torch.randint(1, classes, y.shape, generator=generator).to(y.device)) % classes


# One block: an optional linear layer and the rest, and derivatives inside it.


class Streams(NamedTuple):
    """Normalised inputs scale * (code, pixels) that differ in their label only; never written out.

    The rows of codes and scale are one or several streams of the batch, one after another.
    """

    pixels: Float[Tensor, "batch pixels"]
    codes: Float[Tensor, "rows classes"]
    scale: Float[Tensor, "rows 1"]

    def through(self, layer: nn.Linear, product: Float[Tensor, "batch width"]) -> Float[Tensor, "rows width"]:
        """The linear layer's output, given its product with the pixels."""
        labels = layer.weight[:, : self.codes.size(1)].t()
        z = [torch.addmm(product, codes, labels) for codes in self.codes.split(len(product))]
        out = z[0] if len(z) == 1 else torch.cat(z)
        return out * self.scale if layer.bias is None else torch.addcmul(layer.bias, out, self.scale)


def write(codes: Float[Tensor, "rows classes"], x: Float[Tensor, "batch inputs"]) -> Streams:
    """Codes over the first entries of x, stream after stream, normalised to mean square 1."""
    pixels = x[:, codes.size(1) :]
    energy = pixels.square().sum(1).repeat(len(codes) // len(x)) + codes.square().sum(1)
    return Streams(pixels, codes, (x.size(1) / energy.clamp_min(TINY)).sqrt_().unsqueeze(1))


def fill_gradients(layer: nn.Linear, inputs: "Streams | Tensor", delta: Float[Tensor, "rows width"]) -> None:
    """dL/dW and dL/db from dL/dz of the first rows."""
    if layer.bias is not None and layer.bias.requires_grad:
        layer.bias.grad = delta.sum(0)
    if not layer.weight.requires_grad:
        return
    if isinstance(inputs, Tensor):
        layer.weight.grad = delta.t() @ inputs[: len(delta)]
        return
    delta = delta * inputs.scale[: len(delta)]
    classes = inputs.codes.size(1)
    gradient = torch.empty_like(layer.weight)
    torch.mm(delta.t(), inputs.codes[: len(delta)], out=gradient[:, :classes])
    shared = delta.view(-1, *inputs.pixels.shape[:1], delta.size(1)).sum(0)
    torch.mm(shared.t(), inputs.pixels, out=gradient[:, classes:])
    layer.weight.grad = gradient


class Response(NamedTuple):
    """What follows the linear layer (or the whole block, without one), evaluated, and how to take its derivative."""

    z: Tensor
    h: Tensor
    rest: nn.Sequential
    graph: Tensor | None
    by_hand: bool

    def backward(self, direction: Tensor, through_z: bool) -> Tensor:
        """dL/dz of the first rows from dL/dh; the parameters in `rest` get their gradients."""
        if self.by_hand:
            return direction.mul_(1 - self.h[: len(direction)].square()) if tanh(self.rest) else direction
        assert self.graph is not None
        parameters = [p for p in self.rest.parameters() if p.requires_grad]
        wanted = [self.z, *parameters] if through_z else parameters
        with torch.enable_grad():
            found = torch.autograd.grad(self.graph[: len(direction)], wanted, direction, allow_unused=True)
        for parameter, gradient in zip(parameters, found[len(found) - len(parameters) :], strict=True):
            parameter.grad = gradient
        delta: Tensor = found[0][: len(direction)] if through_z else direction
        return delta


def tanh(rest: nn.Sequential) -> bool:
    return len(rest) == 1 and type(rest[0]) is nn.Tanh


def respond(layer: nn.Linear | None, rest: nn.Sequential, z: Tensor, learns: bool) -> Response:
    """h = rest(z). After a linear layer, ReLU and tanh overwrite z: their slope follows from h.

    ReLU needs no slope at all, since dL/dh is 0 wherever h is.
    """
    if layer is not None and len(rest) == 0:
        return Response(z, z, rest, None, True)
    if layer is not None and len(rest) == 1 and type(rest[0]) in (nn.ReLU, nn.Tanh):
        h = torch.tanh_(z) if tanh(rest) else torch.relu_(z)
        return Response(h, h, rest, None, True)
    if not learns:
        return Response(z, rest(z), rest, None, False)
    with torch.enable_grad():
        z = z.detach().requires_grad_(layer is not None)
        graph = rest(z)
    return Response(z, graph.detach(), rest, graph, False)


def split(block: nn.Module) -> tuple[nn.Linear | None, nn.Sequential]:
    """A block as its linear layer and what follows; (None, the block) where it does not begin with one."""
    if type(block) is nn.Linear:
        return block, nn.Sequential()
    if isinstance(block, nets.Block) and type(block.affine) is nn.Linear:
        return block.affine, nn.Sequential(*(m for m in (block.norm, block.activation, block.pool) if m is not None))
    return None, nn.Sequential(block)


def first_block(net: nn.Sequential) -> int:
    """The place of the first block with parameters."""
    return next(i for i, block in enumerate(net) if any(True for _ in block.parameters()))


def leaves(block: nn.Module) -> Sequence[nn.Module]:
    return [m for m in block.modules() if not list(m.children())]


def default_threshold(block: nn.Module) -> float:
    """Goodness a unit at which a block is undecided: 1, or 0.5 where the mean square activity cannot exceed 1."""
    return 0.5 if any(isinstance(m, BOUNDED) for m in block.modules()) else 1.0
