"""A tree over class targets, so that an input need not be compared with every one of them.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723), prediction option 2: an input is compared with a few targets at an
early block, and only with those near the best of them at the next one. Here level 1 holds the means of groups of
targets, level 2 those of groups inside them, and the last level the targets themselves; the groups are found by k-means
on the directions of the targets at the last of these blocks (scikit-learn).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from altprop.rules.forward_only.likeness import cosine, unit


@dataclass(frozen=True)
class Level:
    """The nodes of a level: what inputs are compared with, and the place of each one's parent in the level above."""

    centres: Float[Tensor, "nodes units"]
    parents: Int[Tensor, " nodes"]


def grow(targets: Sequence[Float[Tensor, "classes _"]], keep: int) -> list[Level]:
    """The tree, one level for each given block's targets; the last level holds the classes in their order.

    With `keep` nodes kept at a level, comparisons are fewest where the first level has `keep` times as many branches.
    Where even so they would be more than half of the classes, there is no level but the last.
    """
    classes, inner = len(targets[0]), len(targets) - 1
    branches = max(1, round((classes / keep) ** (1.0 / (inner + 1))))
    if keep * branches * inner + classes / branches**inner > classes / 2:
        targets = targets[-1:]
    groups = torch.zeros(classes, dtype=torch.int64, device=targets[0].device)  # of each class: its node so far
    found = []
    last = unit(targets[-1].flatten(1))  # likeness of classes shows most here
    for place, rows in enumerate(targets[:-1]):
        a = unit(rows.flatten(1))
        inside = torch.empty_like(groups)
        parents: list[int] = []
        for parent in range(int(groups.max()) + 1):
            members = (groups == parent).nonzero().squeeze(1)
            inside[members] = cluster(last[members], branches if place else keep * branches) + len(parents)
            parents += [parent] * (int(inside[members].max()) + 1 - len(parents))
        means = torch.zeros(len(parents), a.shape[1], dtype=a.dtype, device=a.device).index_add_(0, inside, a)
        found.append(Level(means, torch.tensor(parents, device=a.device)))
        groups = inside
    return [*found, Level(targets[-1].flatten(1), groups)]


def cluster(a: Float[Tensor, "rows units"], groups: int) -> Int[Tensor, " rows"]:
    """The group of each row, numbered from 0 without gaps; at most `groups` of them."""
    from sklearn.cluster import KMeans  # takes a second to import, and only predictions by the tree need it

    if len(a) <= groups:
        return torch.arange(len(a), device=a.device)
    labels = KMeans(groups, n_init=4, random_state=0).fit_predict(a.double().cpu().numpy())
    places: Tensor = torch.from_numpy(labels).to(a.device).unique(return_inverse=True)[1]
    return places


def alive(
    likeness: Float[Tensor, "batch nodes"], compared: Bool[Tensor, "batch nodes"], keep: int, margin: float
) -> Bool[Tensor, "batch nodes"]:
    """Of the nodes that were compared: the `keep` nearest, without those further than `margin` from the nearest."""
    seen = likeness.masked_fill(~compared, -torch.inf)
    best = seen.topk(min(keep, seen.shape[1]), dim=1)
    near = best.values >= best.values[:, :1] - margin
    return torch.zeros_like(compared).scatter_(1, best.indices, near & best.values.isfinite())


def descend(
    tree: Sequence[Level], activities: Sequence[Float[Tensor, "batch _"]], keep: int, margin: float
) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
    """The cosine with every class that was reached, -1 with the others, and the number of comparisons of each input."""
    count = torch.zeros(len(activities[0]), dtype=torch.int64, device=activities[0].device)
    kept = torch.ones(len(count), 1, dtype=torch.bool, device=count.device)
    likeness = activities[0].new_zeros(len(count), 1)
    compared = kept
    for level, h in zip(tree, activities, strict=True):
        compared = kept[:, level.parents]
        likeness = cosine(h, level.centres)
        count = count + compared.sum(1)
        kept = alive(likeness, compared, keep, margin)
    return likeness.masked_fill(~compared, -1.0), count
