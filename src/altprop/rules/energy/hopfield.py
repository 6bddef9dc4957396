"""A row of blocks as a continuous Hopfield net with layers of states, its input clamped (Hopfield 1984, doi
10.1073/pnas.81.10.3088; with convolutions Ernoult et al. 2019, arXiv 1905.13633).

Block l is s_l = f_l(u_l) with F_l = pool(affine(.)), and each weight acts both ways, downwards times the feedback g:

    u_l = F_l(s_{l-1}) + g J_{l+1}^T s_{l+1},    J_l = dF_l / ds_{l-1},    s_0 = x

so that settled states are where this energy does not change (f_l is the slope of the conjugate of G_l):

    E = sum_l g^(l-L) [G_l(s_l) - <s_l, F_l(s_{l-1})>]

g = 1 is Hopfield's net; g < 1 is that of Xie & Seung 2003 (doi 10.1162/089976603762552988), nearer to a feed-forward
one. Even and odd layers in turn each minimise E with the others fixed: with bounded f that settles for any weights,
sooner for small ones. F_1(x) is computed once a batch. Products of linear layers are written by hand, the others are
taken by autograd inside one block.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.nets.fields import Local
from altprop.rule import Metrics, Problem, Rule
from altprop.rules.energy.fixed_point import Settled, Solver, States, relax, settling
from altprop.rules.losses import scores_missing

BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Hardtanh)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
"""What may stand behind the layer: after it the activation may come as well as before (f rises), and J_l is constant
but for jumps."""

Top = Callable[[Tensor, Tensor], Tensor]
"""From the drive u_L of the last layer and its state: its new state."""


class System:
    """The states of `blocks` above an input x that is clamped. `ways[l]` are weights of their own on the way down from
    layer l + 1, where they are not those of the way up."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        first: Inexact[Tensor, "batch ..."],
        feedback: float,
        ways: Sequence[Tensor] = (),
    ) -> None:
        self.blocks, self.first, self.feedback, self.ways = blocks, first, feedback, ways

    def feed_forward(self) -> States:
        """Where relaxation starts: every layer as it were without feedback."""
        states = [squash(self.blocks[0], self.first)]
        for block in self.blocks[1:]:
            states.append(squash(block, drive(block, states[-1])))
        return states

    def drive(self, i: int, states: States) -> Inexact[Tensor, "batch ..."]:
        """u of layer i (counted from 0)."""
        u = self.first if i == 0 else drive(self.blocks[i], states[i - 1])
        if i + 1 == len(self.blocks):
            return u
        above = states[i + 1]
        down = above @ self.ways[i] if self.ways else pull_back(self.blocks[i + 1], states[i], above)
        return torch.add(u, down, alpha=self.feedback)

    def relax(self, start: States, solver: Solver, top: Top | None = None) -> Settled:
        """Settle freely, or with another law for the last layer."""
        last = len(self.blocks) - 1

        def move(i: int, states: States) -> Tensor:
            u = self.drive(i, states)
            return top(u, states[i]) if i == last and top is not None else squash(self.blocks[i], u)

        return relax(move, start, solver)

    def copies(self, count: int, dtype: torch.dtype | None = None) -> "System":
        """The same input `count` times in one batch."""
        first = self.first.repeat(count, *[1] * (self.first.dim() - 1))
        return System(self.blocks, first.to(dtype or first.dtype), self.feedback, self.ways)


def linear(block: nn.Module) -> nn.Linear | None:
    """The layer of a block whose products are written by hand."""
    layer = nets.affine(block)
    bare = not isinstance(block, nets.Block) or block.pool is None
    return layer if isinstance(layer, nn.Linear) and bare else None


def drive(block: nn.Module, x: Inexact[Tensor, "batch ..."]) -> Inexact[Tensor, "batch ..."]:
    """F(x) = pool(affine(x)); x may be complex at linear layers."""
    layer = linear(block)
    if layer is not None:
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return nn.functional.linear(x, layer.weight.to(x.dtype), bias)
    affine = nets.affine(block)
    assert affine is not None
    u: Tensor = affine(x)
    return block.pool(u) if isinstance(block, nets.Block) and block.pool is not None else u


def squash(block: nn.Module, u: Inexact[Tensor, "batch ..."]) -> Inexact[Tensor, "batch ..."]:
    return block.activation(u) if isinstance(block, nets.Block) and block.activation is not None else u


def pull_back(
    block: nn.Module, x: Inexact[Tensor, "batch ..."], s: Inexact[Tensor, "batch ..."]
) -> Inexact[Tensor, "batch ..."]:
    """J^T s, with J = dF/dx."""
    layer = linear(block)
    if layer is not None:
        return s @ layer.weight.to(s.dtype)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(drive(block, x), x, s)[0]


@torch.no_grad()
def ascend(block: nn.Module, x: Inexact[Tensor, "rows ..."], delta: Inexact[Tensor, "rows ..."], batch: int) -> None:
    """Fill `.grad` with minus the slope of <delta, F(x)>, summed over the rows and divided by the batch."""
    layer = linear(block)
    if layer is None:
        parameters = [p for p in block.parameters() if p.requires_grad]
        with torch.enable_grad():
            gradients = torch.autograd.grad(drive(block, x.detach()), parameters, delta / -batch)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return
    delta = delta / -batch
    if layer.weight.requires_grad:
        layer.weight.grad = (delta.T @ x).real
    if layer.bias is not None and layer.bias.requires_grad:
        layer.bias.grad = delta.sum(0).real


class Hopfield(Rule):
    """What rules on such nets share: arguments, what they refuse, the way to predict, the contrast of two phases.

    Arguments:
        feedback: g in (0, 1], the strength of the ways down. Weights as feed-forward nets have them are too large for
            g = 1: the states then have many places to settle in, and learning is slow and rough.
        solver: "asynchronous", "damped" or "anderson"; with it at most `sweeps` sweeps a phase, until no state moves by
            more than `tolerance`, at the `rate` (1 is undamped).
        options: those of `Rule`.
    """

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        feedback: float = 0.1,
        solver: str = "asynchronous",
        sweeps: int = 500,
        tolerance: float = 1e-5,
        rate: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        if not 0.0 < feedback <= 1.0:
            raise UsageError(f"{type(self).__name__}(feedback={feedback}): give a strength in (0, 1]")
        self.feedback, self.solver = feedback, Solver(solver, sweeps, tolerance, rate)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return refusal(net) or scores_missing(net, problem)

    def system(self, x: Float[Tensor, "batch ..."]) -> System:
        return System(list(self.net), drive(self.net[0], x), self.feedback)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        system = self.system(x)
        return system.relax(system.feed_forward(), self.solver).states[-1]

    def target(self, y: Tensor, like: Tensor) -> Float[Tensor, "batch outputs"]:
        """What the outputs should be: one-hot labels, or the regression's targets."""
        if self.problem.kind == "regression":
            return y.to(like.dtype)
        return nn.functional.one_hot(y, self.problem.outputs).to(like.dtype)

    def contrast(self, x: Float[Tensor, "batch ..."], phases: Sequence[tuple[complex | float, States]]) -> None:
        """Every block learns sum of c <s_l, dF_l(s_{l-1})> over the phases (c, s), times g^(l-L).

        What the ways down have made smaller than a rounding error is not made large again.
        """
        depth, most = len(phases[0][1]), 1 / torch.finfo(x.dtype).eps
        for i in range(depth):
            if f"blocks.{i}" not in self.optimizers:
                continue
            scale = min(self.feedback ** (i + 1 - depth), most)
            deltas = [c * scale * states[i] for c, states in phases]
            if i == 0:  # all phases have the same input
                ascend(self.net[i], x, torch.stack(deltas).sum(0).real, len(x))
            else:
                ascend(self.net[i], torch.cat([states[i - 1] for _, states in phases]), torch.cat(deltas), len(x))
            self.update(f"blocks.{i}")

    def settling(self, *phases: Settled) -> Metrics:
        return settling(self, self.solver, *phases)


def clamped(u: Tensor, s: Tensor) -> Tensor:
    """The law of outputs that stay where they are."""
    return s


def squared_error(s: Float[Tensor, "batch outputs"], target: Float[Tensor, "batch outputs"]) -> Float[Tensor, ""]:
    """Half the squared error, mean over the batch."""
    return 0.5 * (s - target).square().sum(1).mean()


def refusal(net: nn.Sequential) -> str | None:
    """Why the row of blocks is no such system, in words."""
    for i, block in enumerate(net):
        if type(nets.affine(block)) not in (nn.Linear, nn.Conv2d, Local):
            return (
                f"block {i} does not begin with a linear, convolutional or locally connected layer, which its states "
                "could send back through; put what reshapes or pools into the block before it"
            )
        norm, f, pool = (getattr(block, part, None) for part in ("norm", "activation", "pool"))
        if norm is not None:
            return f"block {i} has a normalisation, which is no part of a symmetric net; build it without (norm=False)"
        if not isinstance(f, BOUNDED) and not (f is None and i == len(net) - 1):
            return (
                f"block {i} has no bounded activation, and symmetric weights would drive its states without end; "
                'build the net with act="tanh", "sigmoid" or "hard-sigmoid"'
            )
        if any(not isinstance(m, (*POOLS, nn.Sequential)) for m in ([] if pool is None else pool.modules())):
            return f"block {i} ends in {pool}, and only pooling and nn.Flatten can be sent back through"
    return None


def not_linear(net: nn.Sequential) -> str | None:
    """Why not all products can be written by hand, in words."""
    for i, block in enumerate(net):
        if linear(block) is None:
            return (
                f"block {i} is no linear layer with an activation and nothing else, and this rule writes the weights' "
                "two ways by hand; EquilibriumPropagation and ContrastiveHebbian take convolutions"
            )
    return None
