"""Self-contrastive forward-forward: an image with itself is positive, with another one of its batch negative.

Chen, Liu, Laydevant & Grollier 2024 (arXiv 2409.11593; Nature Communications 2025). A pair of inputs lies side by side
before two copies of the same weights, so that a block's affine response to it is the sum of those to the two. With
N(x) = (x - mean x) / std x, affine layers A_l, and what follows them, f_l, up to the activation, p_l the pooling:

    a_0 = N(x),  z_li = A_l a_{l-1,i},  a_li = N(p_l(f_l(z_li)))
    h+_i = f_l(z_i + z_i),  h-_i = f_l(z_i + z_{i-k})      k: drawn for each batch, 1 <= k < batch
    G = mean over units of h^2                             in images: over channels, one G for each place
    L_l = mean softplus(theta1 - G+) + mean softplus(G- - theta2) + lambda mean G+
                                                           dW_l = dL_l/dW_l with a_{l-1} held fixed
    logits_l = sum_{k <= l} V_k a_k                        dV_l = dCE(logits_l, y)/dV_l with logits_{l-1} held fixed

Labels are read by the linear softmax alone, which never tells a block anything. Prediction: the last logits.

Departures from the paper:
1. Pairs are made anew before each block, from the responses to single images. The paper sends positive and negative
   pairs on through the net as two streams; this way each image meets each block's weights once and not twice.
2. All blocks learn in one pass, and have the same theta1, theta2 and lambda; the paper trains one block after another.
3. The softmax is learnt in the same pass, slice by slice: V_l improves on the logits of the slices before it, so that
   no list of activities is kept. V_l starts at zero and has no bias; there is no dropout. The paper learns it after.
4. A block passes on what its own activation makes of the response, also where the paper subtracts the units' mean
   first, and positives are an image with itself, not two shifted copies of it.
5. Pairs of two equal images are left out of the negatives.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule
from altprop.rules.forward_only.activity import limited, refused, softmax_error

OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "blocks": partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-4, fused=True),
    "heads": partial(torch.optim.Adam, lr=3e-3, fused=True),
}


class SelfContrastiveForwardForward(Rule):
    """The self-contrastive forward-forward algorithm (Chen et al. 2024), and a linear softmax on what it has learnt.

    `step(x)` without labels trains the blocks and leaves the softmax alone. Blocks may be linear, convolutional or
    locally connected; those without parameters are passed through, and frozen ones stay as they are.

    Arguments:
        thresholds: (theta1, theta2) of positives and negatives; None: (8, 6), or (0.5, 0.5) where activities cannot
            exceed 1.
        penalty: lambda, of the positives' goodness.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.0", "heads.1", ...

    Raises UsageError for a batch of one image, or of equal images: there is nothing to contrast them with.
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
        thresholds: tuple[float, float] | None = None,
        penalty: float = 5e-4,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, optimizer=optimizer, **options)
        if penalty < 0:
            raise UsageError(f"SelfContrastiveForwardForward: penalty={penalty} must not be negative")
        self.penalty = penalty
        self.thresholds: dict[int, tuple[float, float]] = {}
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape)
        for i, block in enumerate(net):
            weight = next(block.parameters(), None)
            if weight is None:
                continue
            self.thresholds[i] = thresholds or ((0.5, 0.5) if limited(block) else (8.0, 6.0))
            head = nn.utils.skip_init(nn.Linear, prod(shapes[i]), self.problem.outputs, bias=False).to(weight)
            nn.init.zeros_(head.weight)
            self.heads[str(i)] = head
            self.add_part(f"heads.{i}", head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if (reason := refused(net, problem)) is not None:
            return reason
        for i, block in enumerate(net):
            if nets.affine(block) is None and any(p.requires_grad for p in block.parameters()):
                return f"block {i} learns but does not begin with an affine layer, in which the images of a pair add up"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """Block by block; "loss" is the mean loss of the blocks, "head_loss" the softmax's (with labels only)."""
        shift = self._shift(len(x))
        others = unlike(x, x.roll(shift, 0))
        a, losses, logits = standardise(x), x.new_zeros(()), x.new_zeros(len(x), self.problem.outputs)
        learners = [i for i in range(len(self.net)) if f"blocks.{i}" in self.optimizers]
        metrics = {"loss": losses}
        for i, block in enumerate(self.net):
            if i in learners:
                h, loss = self._contrast(i, a, shift, others)
                losses += loss / len(learners)
            else:
                h = block(a)
            a = standardise(h) if str(i) in self.heads else h
            del h
            if y is not None and str(i) in self.heads:
                metrics["head_loss"] = self._classify(i, a.flatten(1), logits, y)
        return metrics

    def _shift(self, batch: int) -> int:
        """k: image i - k (counted round the batch) is the other one of image i's negative pair."""
        if batch < 2:
            raise UsageError(
                "SelfContrastiveForwardForward.step(x): a batch of one image holds no other to pair it with; "
                "give batches of two or more"
            )
        return int(torch.randint(1, batch, (), generator=self.generator))

    @torch.enable_grad()
    def _contrast(
        self, i: int, a: Float[Tensor, "batch ..."], shift: int, others: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
        """Block i learns from the pairs; returns what it makes of each single image, and its loss."""
        block = self.net[i]
        layer = nets.affine(block)
        assert layer is not None
        z: Tensor = layer(a)
        h = activate(block, z)
        double, c = (h, 4.0) if homogeneous(block) else (activate(block, z + z), 1.0)  # G+ = c mean double^2
        pair = activate(block, z + z.roll(shift, 0))
        with torch.no_grad():
            loss, e_plus, e_minus = contrast(
                c * goodness(double), goodness(pair), others, *self.thresholds[i], self.penalty
            )
            pulls = [slope(double, c * e_plus), slope(pair, e_minus)]
        torch.autograd.backward([double, pair], pulls)
        h = h.detach()
        if isinstance(block, nets.Block) and block.pool is not None:
            with torch.no_grad():
                h = block.pool(h)
        self.update(f"blocks.{i}")
        return h, loss

    def _classify(self, i: int, a: Tensor, logits: Tensor, y: Tensor) -> Float[Tensor, ""]:
        """Adds slice i to the logits, and the slice learns from them; returns the cross-entropy."""
        head = self.heads[str(i)]
        logits += head(a)
        head.weight.grad = softmax_error(logits, y).T @ a
        self.update(f"heads.{i}")
        return nn.functional.cross_entropy(logits, y)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The logits of the softmax."""
        a, logits = standardise(x), x.new_zeros(len(x), self.problem.outputs)
        for i, block in enumerate(self.net):
            a = block(a)
            if str(i) in self.heads:
                a = standardise(a)
                logits = logits + self.heads[str(i)](a.flatten(1))
        return logits


def standardise(h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """N(h): each sample without its mean, at variance 1; a constant sample becomes zero."""
    return nn.functional.layer_norm(h, h.shape[1:], eps=1e-10)


def activate(block: nn.Module, z: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """f(z): what a block makes of its affine response, before it pools."""
    if isinstance(block, nets.Block):
        for part in (block.norm, block.activation):
            z = z if part is None else part(z)
    return z


def homogeneous(block: nn.Module) -> bool:
    """Whether surely f(2 z) = 2 f(z), so that one evaluation serves an image and its positive pair."""
    if not isinstance(block, nets.Block):
        return True
    return block.norm is None and (block.activation is None or type(block.activation) in (nn.ReLU, nn.LeakyReLU))


def goodness(h: Float[Tensor, "rows units ..."]) -> Float[Tensor, "rows ..."]:
    """G: mean square over the units; for images over the channels, one for each place."""
    g: Tensor = torch.linalg.vecdot(h, h, dim=1)
    return g / h.size(1)


def slope(h: Float[Tensor, "rows units ..."], e: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows units ..."]:
    """dL/dh of a block's activities, with e = dL/dG."""
    return (e * (2 / h.size(1))).unsqueeze(1) * h


def contrast(
    positive: Float[Tensor, "batch ..."],
    negative: Float[Tensor, "batch ..."],
    others: Bool[Tensor, " batch"],
    theta1: float,
    theta2: float,
    penalty: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """L, dL/dG+ and dL/dG-, of which pairs of equal images (those not in `others`) are left out."""
    others = others.view(-1, *[1] * (negative.dim() - 1))
    high, low = theta1 - positive, negative - theta2
    softplus = nn.functional.softplus
    loss = softplus(high).mean() + (softplus(low) * others).mean() + penalty * positive.mean()
    e_plus = (penalty - high.sigmoid()) / positive.numel()
    return loss, e_plus, low.sigmoid() * others / negative.numel()


def unlike(x: Float[Tensor, "batch ..."], y: Float[Tensor, "batch ..."]) -> Bool[Tensor, " batch"]:
    """Which images differ from their partners; raises UsageError if all images are equal."""
    found = (x != y).flatten(1).any(1)
    if not bool(found.any() | (x != x[:1]).any()):
        raise UsageError(
            "SelfContrastiveForwardForward.step(x): all images of the batch are equal, so that no pair of them is "
            "negative; give batches of different images"
        )
    return found
