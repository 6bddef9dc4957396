"""How like an input's activities are to a target's, which targets match it, and what a block learns from both.

After Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723). Scores are s_ij = k cos(h_i, t_j), and m_ij >= 0 says how far
target j matches input i (a row of m sums to one):

    p_i = softmax_j s_ij,   L = -mean_i sum_j m_ij log p_ij
    Hebbian: dL/dh_i is replaced by sum_j (p_ij - m_ij) t_j / |t_j|, and dL/dt_j by sum_i (p_ij - m_ij) h_i / |h_i|
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MATCHES = ("all", "one", "top")


def cosine(h: Float[Tensor, "batch ..."], t: Float[Tensor, "rows ..."]) -> Float[Tensor, "batch rows"]:
    """cos(h, t), with norms below 1e-3 taken as 1e-3: a row without activity is like no target."""
    h, t = h.flatten(1), t.flatten(1)
    t = unit(t)
    lengths: Tensor = torch.linalg.vector_norm(h, dim=1, keepdim=True)
    return (h @ t.T) / lengths.clamp_min(1e-3)


def unit(a: Float[Tensor, "rows units"]) -> Float[Tensor, "rows units"]:
    """Rows of length one, but for those that are shorter than 1e-3."""
    return nn.functional.normalize(a, dim=1, eps=1e-3)


def matches(
    own: Float[Tensor, "batch units"],
    targets: Float[Tensor, "rows units"],
    kind: str,
    top: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch rows"]:
    """Which targets match an input whose own target is given, by the targets' distances where they come from.

    all: every one at the least distance (v9 of the authors' library); one: one of those at random (v14);
    top: the `top` nearest ones (v15), fewer where there are fewer.
    """
    distance = torch.cdist(own, targets, compute_mode="donot_use_mm_for_euclid_dist")
    if kind == "top":
        nearest = distance.topk(min(top, len(targets)), dim=1, largest=False).indices
        return torch.zeros_like(distance).scatter_(1, nearest, 1.0 / nearest.shape[1])
    matching = (distance <= distance.min(1, keepdim=True).values).to(own)
    if kind == "all":
        return matching / matching.sum(1, keepdim=True)
    chance = torch.rand(distance.shape, generator=generator).to(own)
    one = (matching * (1.0 + chance)).argmax(1, keepdim=True)
    return torch.zeros_like(distance).scatter_(1, one, 1.0)


@torch.no_grad()
def hebbian(
    h: Float[Tensor, "batch units"],
    t: Float[Tensor, "rows units"],
    scores: Float[Tensor, "batch rows"],
    m: Float[Tensor, "batch rows"],
) -> tuple[Float[Tensor, "batch units"], Float[Tensor, "rows units"]]:
    """What stands for dL/dh and dL/dt: sums of the other stream's activities, with no derivative in them."""
    surprise = (scores.softmax(1) - m) / len(h)
    return surprise @ unit(t), surprise.T @ unit(h)
