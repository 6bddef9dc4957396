"""What the rules of predictive coding share: which nets they train, the output's cost, and learning from a chain."""

from collections.abc import Collection, Sequence
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import OptimizerFactory, Problem, Rule
from altprop.rules.energy.prediction import Prediction
from altprop.rules.energy.segments import mixes_samples
from altprop.rules.losses import output_missing

SMALL_EPS_ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3, eps=1e-10, fused=True)
"""Errors shrink with each block they cross; Adam's usual eps of 1e-8 would freeze the early blocks."""


def refusal(net: nn.Sequential, problem: Problem) -> str | None:
    """Why states cannot relax on this net, in words; None if they can."""
    return output_missing(net, problem) or mixes_samples(net)


def cost_of(rule: Rule, output: str | None) -> str:
    """The output's cost, "squared" or "cross-entropy"; left out, squared for regression only."""
    name = type(rule).__name__
    output = output or ("squared" if rule.problem.kind == "regression" else "cross-entropy")
    if output not in ("squared", "cross-entropy"):
        raise UsageError(f"{name}(output={output!r}): choose 'squared' or 'cross-entropy'")
    if output == "cross-entropy" and rule.problem.kind == "regression":
        raise UsageError(f"{name}(output='cross-entropy') needs classes; for regression use 'squared'")
    return output


def check_relaxation(rule: Rule, sweeps: int, rate: float, momentum: float = 0.0) -> None:
    """Raise UsageError unless a relaxation can be carried out so."""
    if sweeps < 1 or not 0.0 < rate < float("inf") or not 0.0 <= momentum < 1.0:
        raise UsageError(
            f"{type(rule).__name__}(sweeps={sweeps}, rate={rate}, momentum={momentum}): sweeps and rate must be "
            "positive, and momentum at least 0 and below 1"
        )


def check_choice(rule: Rule, name: str, word: str, allowed: Collection[str]) -> None:
    """Raise UsageError for a word that is none of those allowed."""
    if word not in allowed:
        raise UsageError(f"{type(rule).__name__}({name}={word!r}): choose {' or '.join(repr(a) for a in allowed)}")


def target_of(
    x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."], problem: Problem
) -> Float[Tensor, "batch outputs"]:
    """What the output is clamped to, in the input's dtype."""
    if problem.kind != "classification":
        return y.to(x.dtype)
    return x.new_zeros(len(y), problem.outputs).scatter_(1, y.unsqueeze(1), 1.0)  # half the time of one_hot


def learn_from(
    rule: Rule, predictions: Sequence[Prediction], errors: Sequence[Tensor | None], scale: float = 1.0
) -> None:
    """Update each part on the gradient of its own prediction's error, times `scale`; blocks that no error has reached
    are left as they are."""
    reached = [error is not None for error in errors]
    for prediction, error in zip(predictions, errors, strict=True):
        if error is not None:
            prediction.fill_gradients(error if scale == 1.0 else scale * error)
    for part, optimizer in rule.optimizers.items():
        word, _, index = part.partition(".")
        if word == "blocks" and (reached[int(index)] or has_gradient(optimizer)):
            rule.update(part)


def has_gradient(optimizer: torch.optim.Optimizer) -> bool:
    """Whether any of its parameters has one; with states before the activation, a norm's lie in the next segment."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
