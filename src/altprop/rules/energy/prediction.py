"""One block's prediction, mu = F(x), and the two products that the error above it takes part in.

The derivative never leaves the block. A linear layer with an activation before or behind it has its products written by
hand: no graph is built for them, and the gradient of a sweep costs one product. Any other block goes through autograd.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rules.energy.segments import Segment

aten = torch.ops.aten

Slope = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
SLOPES: dict[type[nn.Module], Slope] = {
    nn.ReLU: lambda f, z, h, v: aten.threshold_backward(v, h, 0),
    nn.LeakyReLU: lambda f, z, h, v: aten.leaky_relu_backward(v, z, f.negative_slope, False),
    nn.Tanh: lambda f, z, h, v: aten.tanh_backward(v, h),
    nn.Sigmoid: lambda f, z, h, v: aten.sigmoid_backward(v, h),
    nn.GELU: lambda f, z, h, v: aten.gelu_backward(v, z, approximate=f.approximate),
}
"""v times the slope of the activation f at z, where h = f(z), in one pass over memory."""


@dataclass(frozen=True)
class Form:
    """A block that is outer(W inner(x) + b), or x + scale (W inner(x) + b); either activation may be missing."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None
    inner: nn.Module | None = None
    outer: nn.Module | None = None
    scale: float = 1.0
    skip: bool = False


@dataclass(eq=False, slots=True)
class ByHand:
    """The prediction of a block of that form; h = inner(x), z = W h + b. From a clamped x there may be copies of mu."""

    mu: Float[Tensor, "copies outputs"]
    x: Float[Tensor, "batch inputs"]
    block: nn.Module
    form: Form
    h: Float[Tensor, "batch inputs"]
    z: Float[Tensor, "batch outputs"]

    def pull_back(
        self,
        e: Float[Tensor, "batch outputs"],
        below: Float[Tensor, "batch inputs"] | None = None,
        weight: Float[Tensor, "outputs inputs"] | None = None,
    ) -> Float[Tensor, "batch inputs"]:
        """J^T e - below, with J = d mu / d x; `below` is None where it is zero, and `weight` may stand in for W."""
        form = self.form
        v, weight = self._before_outer(e), form.weight if weight is None else weight
        if form.inner is None and below is not None and not form.skip:
            return torch.addmm(below, v, weight, beta=-1)
        pulled = torch.mm(v, weight)
        if form.inner is not None:
            pulled = SLOPES[type(form.inner)](form.inner, self.x, self.h, pulled)
        if form.skip:
            pulled = pulled + e
        return pulled if below is None else pulled - below

    def fill_gradients(self, e: Float[Tensor, "batch outputs"]) -> None:
        """Each parameter's `.grad`: -(d mu / d theta)^T e, mean over the batch."""
        weight, bias, v = self.form.weight, self.form.bias, self._before_outer(e / -len(e))
        if weight.requires_grad:
            weight.grad = torch.mm(v.T, self.h)
        if bias is not None and bias.requires_grad:
            bias.grad = v.sum(0)

    def again(self, x: Float[Tensor, "batch inputs"]) -> "ByHand":
        """The same block's prediction from another state."""
        return by_hand(self.block, self.form, x)

    def weight_gradient(self, e: Float[Tensor, "batch outputs"]) -> Float[Tensor, "outputs inputs"]:
        """-(d mu / d W)^T e, mean over the batch."""
        return torch.mm(self._before_outer(e / -len(e)).T, self.h)

    def back_where(self, rose: Bool[Tensor, " batch"], old: "ByHand") -> "ByHand":
        """The old prediction for the samples whose energy rose."""
        x, mu = where(rose, old.x, self.x), where(rose, old.mu, self.mu)
        h = x if self.h is self.x else where(rose, old.h, self.h)
        z = mu if self.z is self.mu else where(rose, old.z, self.z)
        return ByHand(mu, x, self.block, self.form, h, z)

    def _before_outer(self, e: Tensor) -> Tensor:
        form = self.form
        if form.outer is not None:
            e = SLOPES[type(form.outer)](form.outer, self.z, self.mu, e)
        return e if form.scale == 1.0 else form.scale * e


@dataclass(eq=False, slots=True)
class ByAutograd:
    """The prediction of any differentiable block, with autograd's graph from x to mu and no further."""

    mu: Float[Tensor, "copies ..."]
    x: Float[Tensor, "batch ..."]
    block: nn.Module
    graph: Tensor

    def pull_back(
        self, e: Float[Tensor, "batch ..."], below: Float[Tensor, "batch ..."] | None = None
    ) -> Float[Tensor, "batch ..."]:
        if not self.graph.requires_grad:
            raise UsageError(f"predictive coding: the block {self.block} has no derivative, so no error can pass it")
        (pulled,) = torch.autograd.grad(self.graph, self.x, e, retain_graph=True)
        # Not in place: what comes back from a block that only reshapes is a view of e.
        return pulled if below is None else pulled - below

    def fill_gradients(self, e: Float[Tensor, "batch ..."]) -> None:
        parameters = [p for p in self.block.parameters() if p.requires_grad]
        if not parameters:
            return
        gradients = torch.autograd.grad(self.graph, parameters, e / -len(e), allow_unused=True, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def again(self, x: Float[Tensor, "batch ..."]) -> "ByAutograd":
        """The same block's prediction from another state."""
        return by_autograd(self.block, x)

    def back_where(self, rose: Bool[Tensor, " batch"], old: "ByAutograd") -> "Prediction":
        """Predicted again: no graph leads from a mixture of old and new states to their predictions."""
        return self.again(where(rose, old.x, self.x))


Prediction = ByHand | ByAutograd


def predict(block: nn.Module, x: Float[Tensor, "batch ..."], *, clamped: bool = False) -> Prediction:
    """The block's prediction from the state x below it; no error is ever pulled back to a clamped x."""
    form = form_of(block) if x.dim() == 2 else None
    return by_autograd(block, x, clamped=clamped) if form is None else by_hand(block, form, x)


def by_hand(block: nn.Module, form: Form, x: Float[Tensor, "batch inputs"]) -> ByHand:
    # Activations are called without the hooks of a module: in a sweep they cost as much as the activation.
    h = x if form.inner is None else form.inner.forward(x)
    z = nn.functional.linear(h, form.weight, form.bias)
    mu = z if form.outer is None else form.outer.forward(z)
    if form.scale != 1.0:
        mu = form.scale * mu
    return ByHand(x + mu if form.skip else mu, x, block, form, h, z)


def by_autograd(block: nn.Module, x: Float[Tensor, "batch ..."], *, clamped: bool = False) -> ByAutograd:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(not clamped)
        graph = block(leaf)
    return ByAutograd(graph.detach(), leaf, block, graph)


def form_of(block: nn.Module) -> Form | None:
    """How a block is written by hand; None if it is not."""
    if type(block) is nn.Linear:
        return Form(block.weight, block.bias)
    if isinstance(block, Segment):
        head = None if block.head is None else form_of(block.head)
        if block.tail is None or head is None:
            return head
        plain = head.inner is None and not head.skip
        return replace(head, inner=block.tail) if plain and type(block.tail) in SLOPES else None
    if type(block) is nets.Scaled:
        return Form(block.weight, block.bias, scale=block.scale)
    if isinstance(block, nets.Residual):
        form = form_of(block.layer)
        known = form is not None and type(block.act) in SLOPES
        return replace(form, inner=block.act, skip=True) if form is not None and known else None
    if isinstance(block, nets.Block) and type(block.affine) is nn.Linear and block.norm is None and block.pool is None:
        outer = block.activation
        known = outer is None or type(outer) in SLOPES
        return Form(block.affine.weight, block.affine.bias, outer=outer) if known else None
    return None


def each(value: Float[Tensor, " batch"] | Bool[Tensor, " batch"], like: Tensor) -> Tensor:
    """One value a sample, to be broadcast over a state."""
    return value.view(-1, *[1] * (like.dim() - 1))


def where(rose: Bool[Tensor, " batch"], old: Tensor, new: Tensor) -> Tensor:
    return torch.where(each(rose, new), old, new)
