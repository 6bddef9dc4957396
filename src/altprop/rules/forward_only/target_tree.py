"""A tree over class targets, so that an input need not be compared with every one of them.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723), prediction option 2: an input is compared with a few targets at an
early block, and only with those near the best of them at the next one. Here level 1 holds the means of groups of
targets, level 2 those of groups inside them, and the last level the targets themselves. Groups are of targets that are
alike at the last block, where likeness of classes shows most; so the tree takes no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import torch
from jaxtyping import Float, Int
from torch import Tensor

from altprop.rules.forward_only.grouping import grouped
from altprop.rules.forward_only.likeness import cosine, unit


@dataclass(frozen=True)
class Level:
    """The nodes of a level: the block where inputs are compared with them (its place among those that learn), what
    inputs are compared with there, and the place of each one's parent in the level above."""

    block: int
    centres: Float[Tensor, "nodes units"]
    parents: Int[Tensor, " nodes"]


def grow(targets: Sequence[Float[Tensor, "classes _"]]) -> list[Level]:
    """The tree over every block's targets; its last level holds the classes in their order.

    A node has about ten branches, so that few classes need one level only. The levels are compared at the last blocks,
    one each; where there are fewer blocks, the first levels share the first one.
    """
    classes, blocks = len(targets[0]), len(targets)
    depth = max(1, round(log10(classes)))
    groups = torch.zeros(classes, dtype=torch.int64, device=targets[0].device)  # of each class: its node so far
    found = []
    for left in range(depth, 1, -1):
        groups, parents = split(groups, unit(targets[-1]), left)
        block = max(0, blocks - left)
        rows = unit(targets[block])
        means = torch.zeros_like(rows[: len(parents)]).index_add_(0, groups, rows)
        found.append(Level(block, means, parents))
    return [*found, Level(blocks - 1, targets[-1], groups)]


def split(
    groups: Int[Tensor, " classes"], directions: Float[Tensor, "classes units"], left: int
) -> tuple[Int[Tensor, " classes"], Int[Tensor, " nodes"]]:
    """Every group divided for a tree of `left` levels from here: each class's new group, and each new group's old one.

    What all members of a group have in common says nothing about where to divide it, and is taken off.
    """
    inside = torch.empty_like(groups)
    parents: list[int] = []
    for parent in range(int(groups.max()) + 1):
        members = (groups == parent).nonzero().squeeze(1)
        own = directions[members]
        labels = grouped(unit(own - own.mean(0)), round(len(members) ** (1 / left)))
        inside[members] = labels + len(parents)
        parents += [parent] * (int(labels.max()) + 1)
    return inside, torch.tensor(parents, device=groups.device)


def descend(
    tree: Sequence[Level], activities: Sequence[Float[Tensor, "batch _"]], margin: float
) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
    """The cosine with every class that was reached, -1 with the others, and the number of comparisons of each input.

    Of a node's branches those are followed whose cosine is at most `margin` below that of the nearest one.
    """
    count = torch.zeros(len(activities[0]), dtype=torch.int64, device=activities[0].device)
    followed = torch.ones(len(count), 1, dtype=torch.bool, device=count.device)
    for level in tree:
        compared = followed[:, level.parents]
        count = count + compared.sum(1)
        likeness = cosine(activities[level.block], level.centres)
        nearest = likeness.new_full(followed.shape, -torch.inf)
        nearest = nearest.scatter_reduce(1, level.parents.expand_as(likeness), likeness, "amax")
        followed = compared & (likeness >= nearest[:, level.parents] - margin)
    return likeness.masked_fill(~compared, -1.0), count
