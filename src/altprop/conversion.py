"""Any model learns by a feedback rule in its own loop: its layers send the error down through feedback weights.

    altprop.convert(model, "feedback-alignment")        # then loss.backward() and optimizer.step(), as ever

Every `nn.Linear` and `nn.Conv2d` stays the object that it is, with its own parameters, and becomes a `FeedbackLinear`
or `FeedbackConv2d`. Whatever stands between them (norms, pooling, activations, sums of branches) is differentiated
exactly; there are no hooks. The last layer's own gradient is always the true one.
"""

import difflib
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError, warn
from altprop.rules import places
from altprop.rules.feedback.signs import glorot, signed, sizes
from altprop.rules.feedback.ways import FeedbackConv2d, FeedbackLinear, parts, random_like, root_mean_square

Model = TypeVar("Model", bound=nn.Module)
SIGNS: dict[str, Literal["unit", "fixed", "batch"]] = {"usf": "unit", "frsf": "fixed", "brsf": "batch"}
RULES = ("feedback-alignment", "kolen-pollack", *SIGNS)


class Fixed(nn.Module):
    """Feedback alignment: random weights that never change."""

    def __init__(self, b: Float[Tensor, "outputs inputs ..."]) -> None:
        super().__init__()
        self.register_buffer("weight", b)

    def forward(self, weight: Float[Tensor, "outputs inputs ..."]) -> Float[Tensor, "outputs inputs ..."]:
        return self.get_buffer("weight")


class Learned(nn.Module):
    """Kolen-Pollack: a parameter that gets the gradient of the layer's own weight."""

    def __init__(self, b: Float[Tensor, "outputs inputs ..."]) -> None:
        super().__init__()
        self.weight = nn.Parameter(b)

    def forward(self, weight: Float[Tensor, "outputs inputs ..."]) -> Float[Tensor, "outputs inputs ..."]:
        return self.weight


class Signed(nn.Module):
    """Sign symmetry: the signs that the layer's weights have at this moment, with other magnitudes.

    All alike and drawn ones have the weights' own root mean square at this moment, so that no branch of a net is told
    more than its share of the error; fixed ones have that of the beginning.
    """

    def __init__(self, weight: Tensor, magnitudes: str, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.magnitudes, self.scale, self.generator = magnitudes, scale, generator
        if magnitudes == "fixed":
            self.register_buffer("sizes", self.drawn(weight))

    def forward(self, weight: Float[Tensor, "outputs inputs ..."]) -> Float[Tensor, "outputs inputs ..."]:
        if self.magnitudes == "unit":
            return signed(torch.full_like(weight, self.scale).mul_(size(weight)), weight)
        return signed(self.get_buffer("sizes") if self.magnitudes == "fixed" else self.drawn(weight), weight)

    def drawn(self, weight: Float[Tensor, "outputs inputs ..."]) -> Float[Tensor, "outputs inputs ..."]:
        return sizes(weight, self.scale / glorot(weight), self.generator).mul_(size(weight))


def size(weight: Tensor) -> Float[Tensor, ""]:
    """The root mean square of the weights; Glorot's standard deviation if they are zero."""
    found = root_mean_square(weight)
    return torch.where(found > 0.0, found, glorot(weight))


def convert(
    model: Model,
    rule: str,
    *,
    scale: float = 1.0,
    leave: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> Model:
    """Have the model learn by a feedback rule whenever it is trained with `loss.backward()`; returns the same model.

    Arguments:
        rule: "feedback-alignment"; "usf", "frsf" or "brsf" (signs of the weights, magnitudes all alike, fixed, or drawn
            anew in each pass); "kolen-pollack".
        scale: a factor for the feedback weights; at 1 they have the root mean square of the layer's own at this moment
            ("usf" and "brsf": at every moment).
        leave: leave to backpropagation what cannot be converted, and warn which parts these are and why, instead of
            refusing the model.
        optimizer: the model's, if there is one already. Only "kolen-pollack" needs it: its feedback weights are
            parameters, and each joins the group of the weight that it stands beside. They become the weights only by
            decay, so give that optimizer a `weight_decay` (decoupled with Adam: AdamW).
        generator: where the seed of random feedback is drawn (on the CPU); a fresh one with seed 0 if left out.

    Raises UsageError for a rule that there is not, a model without such layers, and, unless `leave`, for parts with
    other weights, which it names.
    """
    if rule not in RULES and rule in places():
        raise UsageError(
            f"convert(model, {rule!r}): this rule teaches blocks in a row, and a model of any form has none; train "
            f"altprop.blocks(model) by it, or convert by one of {', '.join(RULES)}"
        )
    if rule not in RULES:
        near = difflib.get_close_matches(rule, RULES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(RULES)}"
        raise UsageError(f"convert(model, {rule!r}): there is no such feedback rule for a model; {hint}")
    found = list(parts(model))
    others = [f"{name or 'the model'} ({why})" for name, _, why in found if why]
    layers = [part for _, part, why in found if not why]
    if others and not leave:
        raise UsageError(
            f"convert(model, {rule!r}): no feedback weights can stand for those of {', '.join(others)}; leave=True "
            "leaves them to backpropagation"
        )
    if not layers:
        raise UsageError(f"convert(model, {rule!r}): there is no nn.Linear and no nn.Conv2d in it that could learn so")
    if others:
        warn(f"convert(model, {rule!r}): left to backpropagation: {', '.join(others)}")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    # A stream of its own: one with the seed that the model was drawn from would give feedback that is like the weights.
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    feedback: dict[Tensor, nn.Module] = {}
    for layer in layers:
        weight = layer.get_parameter("weight")
        if weight not in feedback:  # layers that share their weight share its feedback
            feedback[weight] = made(rule, weight, scale, generator)
        layer.__class__ = FeedbackConv2d if isinstance(layer, nn.Conv2d) else FeedbackLinear
        layer.feedback = feedback[weight]
    if optimizer is not None and rule == "kolen-pollack":
        join(optimizer, feedback)
    return model


def made(rule: str, weight: nn.Parameter, scale: float, generator: torch.Generator) -> nn.Module:
    """The feedback of one weight."""
    if rule in SIGNS:
        return Signed(weight, SIGNS[rule], scale, generator)
    b = random_like(weight, scale, generator)
    return Learned(b) if rule == "kolen-pollack" and weight.requires_grad else Fixed(b)


def join(optimizer: torch.optim.Optimizer, feedback: dict[Tensor, nn.Module]) -> None:
    """Put feedback that learns into the group of the weight that it stands beside."""
    for group in optimizer.param_groups:
        beside = [feedback[weight] for weight in group["params"] if weight in feedback]
        group["params"] += [p for module in beside for p in module.parameters()]
