"""The loss at the output, its derivative by the scores, and whether a net has such scores at all.

Cross-entropy for classes, half the squared error for a regression; the error of a sample is e = softmax(s) - onehot(y),
or s - y.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem

Kind = Literal["classification", "regression"]


def losses(
    scores: Float[Tensor, "batch outputs"], y: Shaped[Tensor, "batch ..."], kind: Kind
) -> Float[Tensor, " batch"]:
    """Each sample's loss."""
    if kind == "regression":
        return 0.5 * (scores - y).square().sum(1)
    return nn.functional.cross_entropy(scores, y, reduction="none")


@torch.no_grad()
def output_error(
    scores: Float[Tensor, "batch outputs"], y: Shaped[Tensor, "batch ..."], kind: Kind
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch outputs"]]:
    """The mean of the samples' losses, and each sample's error e (divided by the batch, e is the mean's derivative)."""
    if kind == "regression":
        e = scores - y
        return 0.5 * e.square().sum(1).mean(), e
    log_p, truth = scores.log_softmax(1), y.unsqueeze(1)
    loss = -log_p.gather(1, truth).mean()
    e = log_p.exp_()
    return loss, e.scatter_add_(1, truth, torch.full_like(e[:, :1], -1.0))


def output_missing(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the net does not end in an output block for this problem, in words."""
    output, n = nets.output_layer(net), problem.outputs
    if output is None or output.out_features != n:
        return f"it needs an output block with {n} outputs (build the net with classes={n})"
    return None


def scores_missing(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the net's last block does not give (batch, outputs), in words; it need not be an output block."""
    output = nets.output_layer(net)
    gives = [(output.out_features,)] if output is not None else nets.shapes(net, problem.input_shape)[-1:]
    if gives != [(problem.outputs,)]:
        return f"its last block must give {problem.outputs} outputs (build the net with classes={problem.outputs})"
    return None
