"""What the rules of the forward-forward family share about a block's activities, a head and a net."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem

BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign, nn.LayerNorm)
TINY = 1e-12
"""Below this length a vector counts as zero, and its normalised form is zero."""


def lengths(h: Float[Tensor, "*rows units"]) -> Float[Tensor, "*rows"]:
    """|h|; its square is the sum of squares."""
    found: Tensor = torch.linalg.vector_norm(h, dim=-1)
    return found


def normalised(h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """N(h) = h / sqrt(mean h^2); a row of zeros stays one."""
    return h * to_unit(h)


def normalised_(h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """N(h) in its place: new memory costs more than the product."""
    return h.mul_(to_unit(h))


def to_unit(h: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    """What each row has to be multiplied by, so that its mean square is 1."""
    scale: Tensor = h.shape[1:].numel() ** 0.5 / lengths(h.flatten(1)).clamp_min(TINY)
    return scale.view(-1, *[1] * (h.dim() - 1))


def softmax_error(
    logits: Float[Tensor, "batch classes"], y: Shaped[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """dCE/dlogits of the mean cross-entropy."""
    error = logits.softmax(1)
    return error.sub_(nn.functional.one_hot(y, logits.size(1))).div_(len(y))


def limited(block: nn.Module) -> bool:
    """Whether the mean square activity cannot exceed 1."""
    return any(isinstance(m, BOUNDED) for m in block.modules())


def refused(net: nn.Sequential, problem: Problem) -> str | None:
    """Why no rule of the family can contrast samples in this net, in words; None if it can."""
    if problem.kind == "regression" or problem.outputs < 2:
        return "it tells classes apart, so it needs two classes or more; choose another rule"
    if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
        return "batch statistics would mix positive and negative samples; use layer normalisation (norm=True)"
    if nets.output_layer(net) is not None:
        return "it ends in an output block, whose scores would be trained as features; build it without classes"
    if not any(p.requires_grad for p in net.parameters()):
        return "no block has trainable parameters; set requires_grad on some"
    return None
