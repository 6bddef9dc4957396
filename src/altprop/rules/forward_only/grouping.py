"""Groups of directions: k-means on the sphere by random swaps.

Many classes are often made of parts (a number of its digits), and then k-means has many bad local optima: groups by one
part beside groups by another. Fränti 2018 ("Efficiency of random swap clustering", Journal of Big Data 5, 13): move one
centre to a row at random, go on with k-means for a few rounds, and stay there if that is better. Here several walks do
so side by side, and the best one counts.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

WALKS, SWAPS, ROUNDS = 8, 200, 3


def grouped(a: Float[Tensor, "rows units"], groups: int, seed: int = 0) -> Int[Tensor, " rows"]:
    """The group of each row (of length one), numbered from 0 without gaps; at most `groups` of them."""
    if len(a) <= groups:
        return torch.arange(len(a), device=a.device)
    if len(a) < a.shape[1]:
        a = torch.linalg.qr(a.mT, mode="r").R.mT  # the same cosines in fewer dimensions
    g = torch.Generator().manual_seed(seed)
    picks = torch.stack([torch.randperm(len(a), generator=g)[:groups] for _ in range(WALKS)])
    best, centres = settled(a, a[picks.to(a.device)])
    for _ in range(SWAPS):
        leaves = torch.randint(groups, (WALKS,), generator=g)
        comes = torch.randint(len(a), (WALKS,), generator=g).to(a.device)
        moved = centres.clone()
        moved[torch.arange(WALKS), leaves] = a[comes]
        total, moved = settled(a, moved)
        better = total > best
        best = torch.where(better, total, best)
        centres = torch.where(better[:, None, None], moved, centres)
    nearest = (a @ centres[best.argmax()].mT).argmax(1)
    places: Tensor = nearest.unique(return_inverse=True)[1]
    return places


def settled(
    a: Float[Tensor, "rows units"], centres: Float[Tensor, "walks groups units"]
) -> tuple[Float[Tensor, " walks"], Float[Tensor, "walks groups units"]]:
    """The centres after a few rounds of k-means, and the sum over rows of the cosine with the nearest of them."""
    for _ in range(ROUNDS):
        nearest = (centres @ a.mT).argmax(1)
        members = one_hot(nearest, centres.shape[1]).mT.to(a)
        centres = normalize(members @ a, dim=2)
    return (centres @ a.mT).amax(1).sum(1), centres
