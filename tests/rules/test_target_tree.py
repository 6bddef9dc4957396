"""The tree over class targets: its groups, its search counted by hand, and what the margin does."""

import pytest
import torch
from torch import Tensor

from altprop.rules.forward_only.grouping import grouped
from altprop.rules.forward_only.likeness import cosine, unit
from altprop.rules.forward_only.target_tree import Level, descend, grow


def numbers(digits: int, units: int = 200, seed: int = 0) -> Tensor:
    """Targets of all numbers of so many digits: a direction of each digit at each place, and some of their own."""
    g = torch.Generator().manual_seed(seed)
    parts = torch.randn(digits, 10, units, generator=g)
    classes = torch.cartesian_prod(*[torch.arange(10)] * digits)
    own = torch.randn(10**digits, units, generator=g)
    return sum(parts[place, classes[:, place]] for place in range(digits)) + own + 3.0 * torch.randn(units, generator=g)


def partition(labels: Tensor) -> set[frozenset[int]]:
    return {frozenset((labels == group).nonzero().squeeze(1).tolist()) for group in labels.unique()}


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_grouped_by_one_of_their_digits(seed: int) -> None:
    rows = numbers(2, seed=seed)
    found = partition(grouped(unit(rows - rows.mean(0)), 10))
    assert found in (partition(torch.arange(100) // 10), partition(torch.arange(100) % 10))


def test_groups_are_numbered_without_gaps() -> None:
    rows = unit(torch.randn(30, 5, generator=torch.Generator().manual_seed(0)))
    assert grouped(rows, 4).unique().tolist() == [0, 1, 2, 3]
    assert grouped(rows, 40).tolist() == list(range(30))
    assert grouped(rows[:1].expand(6, -1), 3).tolist() == [0] * 6


def test_a_level_for_each_ten_branches_and_the_last_blocks() -> None:
    blocks = [numbers(2, seed=seed) for seed in range(3)]
    first, last = grow(blocks)
    assert (first.block, last.block, len(first.centres)) == (1, 2, 10)
    assert torch.equal(last.centres, blocks[2]) and torch.equal(first.parents, torch.zeros(10, dtype=torch.int64))
    members = unit(blocks[1])[last.parents == 3]
    torch.testing.assert_close(first.centres[3], members.sum(0))
    assert [len(grow([rows[:n] for rows in blocks])) for n in (1, 10, 31, 32)] == [1, 1, 1, 2]


def test_where_there_are_fewer_blocks_than_levels_the_first_is_looked_at_twice() -> None:
    tree = grow([numbers(3, seed=seed)[:400] for seed in range(2)])
    assert [level.block for level in tree] == [0, 0, 1]
    groups, parts = tree[1].parents[tree[2].parents], tree[2].parents
    assert len(tree[0].centres) == 7 and len(tree[1].centres) == int(parts.max()) + 1 > 40 and len(parts) == 400
    for part in parts.unique():  # every part lies in one group
        assert len(groups[parts == part].unique()) == 1


def small() -> list[Level]:
    """Two groups, of two and of three classes, on the plane; angles in degrees."""

    def at(*degrees: float) -> Tensor:
        angle = torch.tensor(degrees).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], 1)

    return [
        Level(0, at(0, 90), torch.tensor([0, 0])),
        Level(1, at(-20, 30, 60, 90, 140), torch.tensor([0, 0, 1, 1, 1])),
    ]


def test_search_by_hand() -> None:
    angle = torch.tensor([10.0, 44.0, 70.0]).deg2rad()
    h = [torch.stack([angle.cos(), angle.sin()], 1)] * 2
    scores, count = descend(small(), h, 0.0)
    assert count.tolist() == [4, 4, 5]
    assert (scores > -1).tolist() == [[True, True, False, False, False]] * 2 + [[False, False, True, True, True]]
    assert scores.argmax(1).tolist() == [1, 1, 2]
    # At 44 degrees the groups' cosines are 0.719 and 0.695: with a margin of 0.05 both are searched.
    scores, count = descend(small(), h, 0.05)
    assert count.tolist() == [4, 7, 5] and scores.argmax(1).tolist() == [1, 1, 2]
    torch.testing.assert_close(scores[1], cosine(h[1], small()[1].centres)[1])
    scores, count = descend(small(), h, 2.0)
    assert count.tolist() == [7] * 3
    torch.testing.assert_close(scores, cosine(h[1], small()[1].centres))


def test_branches_are_pruned_beside_their_own_siblings() -> None:
    """Both groups are followed, and each one's best part, however far it is behind the other's."""
    level = [
        Level(0, torch.eye(6)[:2], torch.tensor([0, 0])),
        Level(0, torch.eye(6)[2:], torch.tensor([0, 0, 1, 1])),
        Level(0, torch.eye(6)[2:], torch.arange(4)),
    ]
    h = [torch.tensor([[0.5, 0.5, 0.9, 0.1, 0.3, 0.2]])]
    scores, count = descend(level, h, 0.01)
    assert count.tolist() == [2 + 4 + 2] and (scores[0] > -1).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("digits", "classes", "most"), [(2, 100, 27), (3, 400, 50)])
def test_the_tree_finds_nearly_all_at_a_fraction_of_the_comparisons(digits: int, classes: int, most: int) -> None:
    g = torch.Generator().manual_seed(1)
    targets = numbers(digits)[:classes]
    rows = torch.randint(len(targets), (500,), generator=g)
    h = targets[rows] + 1.0 * torch.randn(500, targets.shape[1], generator=g)
    scores, count = descend(grow([targets, targets]), [h, h], 0.05)
    nearest = cosine(h, targets).argmax(1)
    assert float((scores.argmax(1) == nearest).double().mean()) > 0.99
    assert float(count.double().mean()) < most
