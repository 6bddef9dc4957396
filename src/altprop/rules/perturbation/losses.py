"""The loss of every sample, its derivative by the scores, and whether a net's last block gives such scores at all."""

from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem


def losses(
    scores: Float[Tensor, "batch outputs"],
    y: Shaped[Tensor, "batch ..."],
    kind: Literal["classification", "regression"],
) -> Float[Tensor, " batch"]:
    """Each sample's cross-entropy, or half its squared error."""
    if kind == "regression":
        return 0.5 * (scores - y).square().sum(1)
    return nn.functional.cross_entropy(scores, y, reduction="none")


def loss_and_error(
    scores: Float[Tensor, "batch outputs"],
    y: Shaped[Tensor, "batch ..."],
    kind: Literal["classification", "regression"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch outputs"]]:
    """The mean of the samples' losses, and its derivative by the scores."""
    e = scores - y if kind == "regression" else scores.softmax(1) - nn.functional.one_hot(y, scores.size(1))
    return losses(scores, y, kind).mean(), e / len(e)


def scores_missing(net: nn.Sequential, problem: Problem) -> str | None:
    """Why the net's last block does not give (batch, outputs), in words; it need not be an output block."""
    output = nets.output_layer(net)
    gives = [(output.out_features,)] if output is not None else nets.shapes(net, problem.input_shape)[-1:]
    if gives != [(problem.outputs,)]:
        return f"its last block must give {problem.outputs} outputs (build the net with classes={problem.outputs})"
    return None
