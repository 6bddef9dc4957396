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


def images_by_goodness(
    rule: Rule,
    classes: Sequence[int] | None = None,
    steps: int = 200,
    rate: float = 0.1,
    *,
    decay: float = 0.02,
    start: float = 0.1,
) -> Float[Tensor, "classes ..."]:
    """One image a class, (classes, *input_shape) with values in [0, 1]: that class's goodness ascended by gradient.

    Each image x = sigmoid(u) begins at one grey, and follows with Adam the lead of its class, energy_c - mean of the
    others, whose gradient is brought to length 1 (goodness has a net's own scale, and soon no slope in common).

    Arguments:
        rule: with an `energy(x)` that gives (batch, classes); its parameters and its `.grad`s stay as they are.
        classes: which; all if left out.
        steps, rate: how many steps, and how long they are in u.
        decay: pull back to the grey, a step.
        start: the grey, between 0 and 1.

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
    grey = torch.logit(torch.tensor(start)).item()
    u = like.new_full((len(wanted), *(n or 0 for n in shape)), grey).requires_grad_()
    optimizer = torch.optim.Adam([u], lr=rate)
    for _ in range(steps):
        u.grad = ascent(energy, u, labels)
        optimizer.step()
        with torch.no_grad():
            u.lerp_(torch.full_like(u, grey), decay)
    return u.detach().sigmoid()


@torch.enable_grad()
def ascent(
    energy: Callable[[Tensor], Tensor], u: Float[Tensor, "classes ..."], labels: Int[Tensor, "classes 1"]
) -> Float[Tensor, "classes ..."]:
    """Minus the derivative of each class's lead by its own image's logits, at length 1."""
    found = energy(torch.sigmoid(u))
    own = found.gather(1, labels).squeeze(1)
    lead = own - (found.sum(1) - own) / (found.size(1) - 1)
    (slope,) = torch.autograd.grad(lead.sum(), u)
    return -nn.functional.normalize(slope.flatten(1), dim=1).view_as(u)
