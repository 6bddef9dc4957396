"""How a rule's updates stand to backpropagation's: block by block, the cosine between the two and the ratio of lengths.

A cosine of 1 with a ratio of 1e-3 is backpropagation at a thousandth of its rate, which Adam makes good: by itself no
sign of another way of learning. So both are given, beside the rule's own distance from its equilibrium.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from altprop.rule import Rule
from altprop.rules.losses import losses

Gradients = Mapping[str, Float[Tensor, " parameters"]]
"""By part, all its parameters in one row."""


@dataclass(frozen=True)
class Alignment:
    """One part's update beside another's: their cosine, and the ratio of their lengths."""

    part: str
    cosine: float
    ratio: float


def updates(rule: Rule, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]) -> tuple[Gradients, float]:
    """What a step gives each block's optimizer (summed, where there are several updates), and the step's "residual".

    The rule itself is left as it is. The residual is NaN for rules that have none.
    """
    twin = copy.deepcopy(rule)
    found: dict[Tensor, Tensor] = {}

    def catch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p.grad is not None:
                found[p] = found[p] + p.grad if p in found else p.grad.clone()
            p.grad = None  # nothing moves, so that the next update starts from the same weights

    for optimizer in twin.optimizers.values():
        optimizer.register_step_pre_hook(catch)
    metrics = twin.step(x, y)
    return by_block(twin, found), float(metrics.get("residual", float("nan")))


def by_block(rule: Rule, gradients: Mapping[Tensor, Tensor]) -> Gradients:
    """The gradients of each block's trainable parameters as one row."""
    rows = {}
    for i, block in enumerate(rule.net):
        own = [gradients.get(p, torch.zeros_like(p)).flatten() for p in block.parameters() if p.requires_grad]
        if own:
            rows[f"blocks.{i}"] = torch.cat(own).detach()
    return rows


def by_backprop(
    rule: Rule, x: Shaped[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], cost: str | None = None
) -> Gradients:
    """The gradient of the mean loss of the net's forward pass.

    cost: "squared" or "cross-entropy"; left out, the rule's own where it names one (`output`), else the problem's.
    """
    scores, target = rule.net(x), y
    kind = rule.problem.kind
    if (cost or getattr(rule, "output", "")) == "squared" and kind == "classification":
        kind, target = "regression", torch.nn.functional.one_hot(y, rule.problem.outputs).to(scores.dtype)
    loss = losses(scores, target, kind).mean()
    parameters = [p for p in rule.net.parameters() if p.requires_grad]
    return by_block(rule, dict(zip(parameters, torch.autograd.grad(loss, parameters), strict=True)))


def compare(found: Gradients, expected: Gradients) -> list[Alignment]:
    """Part by part; NaN for the cosine of an update that is exactly zero."""
    rows = []
    for part, other in expected.items():
        own = found.get(part, torch.zeros_like(other))
        length, reference = float(own.norm()), float(other.norm())
        cosine = float(own @ other) / (length * reference) if length * reference > 0 else float("nan")
        rows.append(Alignment(part, cosine, length / reference if reference > 0 else float("nan")))
    return rows
