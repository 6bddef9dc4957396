"""What a net believes: the images that its goodness likes best, one a class.

A picture for analysis only: it takes the derivative of the energy by the image, through all blocks, which no
forward-only rule does when it learns or draws.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Rule

FAINT = 0.01
"""No pixel starts nearer to 0 or 1 than this: it could hardly move."""


def images_by_goodness(
    rule: Rule,
    classes: Sequence[int] | None = None,
    steps: int = 200,
    rate: float = 1.0,
    *,
    decay: float = 0.02,
    start: float | Float[Tensor, "..."] = 0.1,
    smooth: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "classes ..."]:
    """One image a class, (classes, *input_shape) with values in [0, 1]: that class's goodness ascended by gradient.

    Each image x = sigmoid(u) begins at the same start, and follows the lead of its class, energy_c - mean of the
    others, in steps of one length (goodness has a net's own scale, and soon no slope in common).

    Arguments:
        rule: with an `energy(x)` that gives (batch, classes); its parameters and its `.grad`s stay as they are.
        classes: which; all if left out.
        steps, rate: how many steps, and how long they are in u.
        decay: pull back to the start, a step.
        start: a grey, or one image of the input's shape; all between 0 and 1.
        smooth: what each gradient (classes, *input_shape) goes through before a step, such as a blur: without one, most
            of what is found is as fine as the pixels.

    Raises UsageError for a rule without energy, for open input sizes and for classes that the problem does not have.
    """
    energy = getattr(rule, "energy", None)
    if not callable(energy):
        raise UsageError(
            f"images_by_goodness: {type(rule).__name__} has no energy(x); take a rule of the forward-forward family"
        )
    shape, outputs = rule.problem.input_shape, rule.problem.outputs
    wanted = list(range(outputs) if classes is None else classes)
    if None in shape:
        raise UsageError(f"images_by_goodness: the input shape {shape} leaves sizes open; give problem=Problem(...)")
    if not wanted or not all(0 <= c < outputs for c in wanted):
        raise UsageError(f"images_by_goodness: classes={wanted} must be some of 0 to {outputs - 1}")
    like = next(rule.parameters())
    labels = torch.tensor(wanted, device=like.device).unsqueeze(1)
    size = tuple(n or 0 for n in shape)
    first = (
        torch.as_tensor(start)
        .to(like)
        .expand(size)
        .clamp(FAINT, 1 - FAINT)
        .logit()
        .repeat(len(wanted), *[1] * len(size))
    )
    u = first.clone().requires_grad_()
    for _ in range(steps):
        slope = ascent(energy, u, labels)
        slope = slope if smooth is None else smooth(slope)
        with torch.no_grad():
            u += rate * nn.functional.normalize(slope.flatten(1), dim=1).view_as(u)
            u.lerp_(first, decay)
    return u.detach().sigmoid()


@torch.enable_grad()
def ascent(
    energy: Callable[[Tensor], Tensor], u: Float[Tensor, "classes ..."], labels: Int[Tensor, "classes 1"]
) -> Float[Tensor, "classes ..."]:
    """The derivative of each class's lead by its own image's logits."""
    found = energy(torch.sigmoid(u))
    own = found.gather(1, labels).squeeze(1)
    lead = own - (found.sum(1) - own) / (found.size(1) - 1)
    (slope,) = torch.autograd.grad(lead.sum(), u)
    return slope
