"""Competitive learning: hard, k- and soft winner-take-all on any patch, from online k-means to Lagani's networks.

Grossberg 1976 (doi 10.1007/BF00344744, instar); MacQueen 1967 (k-means); Lagani, Falchi, Gennaro & Amato 2022 (arXiv
2205.08264, and FastHebb, arXiv 2207.03172); Miconi 2021 (arXiv 2107.01729, homeostasis). For a patch x, sums u = W x:

    similarity  s = u;  or u / (||x|| ||w||), mapped to ((1 + s) / 2)^2;  or -||x - w||^2 / 2
    y           1 for the k units with the largest s - threshold, 0 elsewhere;  or softmax(t (s - threshold))
    "instar"    dW_k = < y_k (x - w_k) >,      "oja"  dW_k = < y_k (x - u_k w_k) >
    thresholds  + homeostasis * (share of patches won - k / units), after each batch
    neighbours  y_k <- sum_j exp(-r_kj^2 / (2 width^2)) y_j, for units r_kj apart on a grid: a self-organising map
                (Kohonen 1982, doi 10.1007/BF00337288), whose width falls with the rate

The mean is over all patches; over those that the unit won, weighted by y (Lagani); or dW_k is the sum over the unit's
wins so far ("history"), which at a rate of 1 makes a unit the mean of all that it ever won: online k-means.

Departure: a convolution's patches keep their length (the papers whiten images before).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.competition import Competitive, responsibilities, winners
from altprop.rules.hebbian.kernels import near_on_a_grid, over_units
from altprop.rules.hebbian.patches import Layer, along, count, means, product, scaled
from altprop.rules.hebbian.similarity import cosine

CHOICES = {
    "competition": ("hard", "soft"),
    "similarity": ("dot", "cosine", "distance"),
    "pull": ("instar", "oja"),
    "average": ("patches", "wins", "history"),
}


class CompetitiveLearning(Competitive):
    """Winner-take-all learning (hard, k winners, soft) for linear and convolutional layers, with a readout.

    Arguments:
        competition: "hard" or "soft". winners: k, of a hard one. inverse_temperature: t, of a soft one.
        similarity: "dot", "cosine" or "distance".
        pull: "instar" or "oja": how weights are drawn to what they won.
        average: what a change is the mean over: "patches", "wins" or "history".
        homeostasis: how fast thresholds rise for units that win more than their share; 0 for none.
        neighbours: how far on a grid of units (row by row, as square as can be) a winner takes others along, at first;
            0 for not at all. With average="wins" it is the batch map, for batches that hold many patches a unit.
        The others are those of `Hebbian`; the parts are "blocks.0", "blocks.1", ... and "head".
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        competition: str = "hard",
        winners: int = 1,
        inverse_temperature: float = 50.0,
        similarity: str = "distance",
        pull: str = "instar",
        average: str = "wins",
        homeostasis: float = 0.0,
        neighbours: float = 0.0,
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        said = {"competition": competition, "similarity": similarity, "pull": pull, "average": average}
        for name, value in said.items():
            if value not in CHOICES[name]:
                raise UsageError(f"CompetitiveLearning({name}={value!r}): choose one of {', '.join(CHOICES[name])}")
        if winners < 1 or inverse_temperature <= 0 or homeostasis < 0:
            raise UsageError(
                f"CompetitiveLearning(winners={winners}, inverse_temperature={inverse_temperature}, homeostasis="
                f"{homeostasis}): give at least one winner, a temperature above 0 and a homeostasis not below it"
            )
        if competition == "soft" and average == "history":
            raise UsageError(
                'CompetitiveLearning(competition="soft", average="history"): a "history" is of what a unit won, and a '
                'soft competition has no winners; take average="wins" or "patches"'
            )
        if neighbours < 0 or (neighbours and average == "history"):
            raise UsageError(
                f"CompetitiveLearning(neighbours={neighbours}, average={average!r}): give a width not below 0, and "
                'with neighbours average="wins" or "patches": a "history" is of what a unit won by itself'
            )
        super().__init__(net, problem, settle=settle, **options)
        fewest = min(len(self.wins(i)) for i in self.layers)
        if winners > fewest:
            raise UsageError(f"CompetitiveLearning(winners={winners}): a block has {fewest} units; let fewer win")
        self.competition, self.k, self.inverse_temperature = competition, winners, inverse_temperature
        self.similarity, self.pull, self.average, self.homeostasis = similarity, pull, average, homeostasis
        self.neighbours = neighbours
        for i in self.layers:
            self.register_buffer(f"thresholds_{i}", torch.zeros_like(self.wins(i)))

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        y = self.activities(i, similarity(self.similarity, layer, x, u))
        if self.neighbours:
            y = over_units(near_on_a_grid(y.shape[1], self.neighbours * self.rate), y)
        share = means(y)
        drawn = share if self.pull == "instar" else means(y * u)
        change = product(layer, y, x).sub_(scaled(drawn, layer.weight))
        if self.average == "patches":
            return change
        size = share if self.average == "wins" else self.wins(i) / count(y)
        return scaled(1.0 / size.clamp_min(torch.finfo(y.dtype).eps), change)

    def activities(self, i: int, s: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
        """y of block i from its similarities; counts its winners, and moves its thresholds after."""
        thresholds = self.get_buffer(f"thresholds_{i}")
        s = s - along(thresholds, s)
        best = winners(s, self.k)
        self.count(i, best)
        hard = torch.zeros_like(s).scatter_(1, best, 1.0)
        if self.homeostasis:
            thresholds.add_(means(hard) - self.k / s.shape[1], alpha=self.homeostasis)
        return hard if self.competition == "hard" else responsibilities(s, self.inverse_temperature)


def similarity(
    kind: str, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
) -> Float[Tensor, "batch units ..."]:
    """s of each unit and patch (for "distance" without -||x||^2 / 2, which all units share)."""
    if kind == "dot":
        return u
    if kind == "distance":
        return u - along(layer.weight.flatten(1).norm(dim=1).square() / 2.0, u)
    return cosine(layer, x, u).add_(1.0).div_(2.0).square_()
