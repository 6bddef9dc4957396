"""Lateral kernels against loops over places and units, and what a self-organising map is for."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from altprop.oracles.check import Check, apart
from altprop.oracles.one_by_one import (
    LAYERS,
    against,
    cosine,
    dot,
    hot,
    made,
    one,
    one_by_one,
    patches,
    soft,
    subject,
    with_weights,
)
from altprop.rules.hebbian.bcm import BCM
from altprop.rules.hebbian.competitive import CompetitiveLearning

UNITS, COLUMNS = 64, 8


def surround(row: int, column: int) -> float:
    """The kernel between two places, centre 1."""

    def lobe(squares: float, sigma: float) -> float:
        return math.exp(-squares / (2 * sigma**2)) / (2 * math.pi * sigma**2)

    squares = float(row**2 + column**2)
    return (lobe(squares, 1.2) - lobe(squares, 1.4)) / (lobe(0.0, 1.2) - lobe(0.0, 1.4))


def bcm_with_lateral_kernels_equals_loops_over_places() -> Iterator[Check]:
    """Its change with cosines and a difference of Gaussians, and sums over images, places, units and neighbours."""
    for name, arguments in LAYERS.items():
        for similarity, lateral in (("cosine", False), ("cosine", True), ("dot", True)):
            if lateral and not arguments:
                continue  # a linear layer has no places
            options: dict[str, Any] = {"similarity": similarity, "lateral": lateral, "normalise": False}
            rule, layer, x = subject(BCM, *made(arguments), **options)
            with torch.no_grad():
                u = layer(x)
                found = rule.change(0, layer, x, u).flatten(1)
            w, rows, size = layer.weight.detach().flatten(1), patches(layer, x), tuple(u.shape[2:])
            s = torch.stack([2 * cosine(w, row).sqrt() - 1 if similarity == "cosine" else w @ row for row in rows])
            y = torch.stack([hot(v) * v.clamp_min(0.0) for v in (mingled(s, len(x), size) if lateral else s)])
            theta = y.square().mean(0)
            expected = torch.stack([(y[:, k] * (y[:, k] - theta[k])) @ rows for k in range(len(w))]) / len(rows)
            yield Check(f"{similarity}{', lateral' if lateral else ''}, {name}", apart(found, expected), 1e-12)


def mingled(s: Tensor, images: int, size: tuple[int, ...]) -> Tensor:
    """Each unit's values with those of its neighbourhood, place after place."""
    height, width = size
    image = s.view(images, height, width, -1)
    found = torch.zeros_like(image)
    for down, right in product(range(-2, 3), range(-2, 3)):
        kernel = surround(down, right)
        for row, column in product(range(height), range(width)):
            if 0 <= row + down < height and 0 <= column + right < width:
                found[:, row, column] += kernel * image[:, row + down, column + right]
    return found.view_as(s)


def maps_equal_samples_one_by_one() -> Iterator[Check]:
    """Competitive learning with neighbours, and the sum over patches, units and their neighbours in plain loops."""
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    distances = torch.tensor([[math.dist(a, b) for b in places] for a in places], dtype=torch.float64)
    near = (distances.square() / (-2 * 0.8**2)).exp()

    def taken_along(w: Tensor, x: Tensor) -> Tensor:
        return near @ hot(w @ x)

    def softly(w: Tensor, x: Tensor) -> Tensor:
        return near @ soft(w, x)

    options: dict[str, Any] = {"similarity": "dot", "average": "patches", "neighbours": 0.8}
    gently: dict[str, Any] = {"competition": "soft", "inverse_temperature": 0.7}
    for pull, drawn in (("instar", one), ("oja", dot)):
        options["pull"] = pull
        yield from against(CompetitiveLearning, one_by_one(taken_along, drawn), f"hard, {pull}", **options)
        yield from against(CompetitiveLearning, one_by_one(softly, drawn), f"soft, {pull}", **options, **gently)


def square(seed: int, step: int, size: int = 200) -> Tensor:
    """Points of the unit square."""
    draw = torch.Generator().manual_seed(10_000 * seed + step)
    return torch.rand(size, 2, generator=draw, dtype=torch.float64)


def map_of(seed: int, neighbours: float, average: str, rate: float) -> tuple[float, float, float]:
    """After learning a square: how often the two units nearest to a point are no neighbours on the grid; how far a unit
    is from one beside it on the grid, over the mean distance of two units; and how far a point is from the nearest."""
    layer = with_weights(square(seed, 9999, UNITS))
    rule, _, _ = subject(CompetitiveLearning, layer, (2,), neighbours=neighbours, average=average)
    rule.optimizers["blocks.0"].param_groups[0]["lr"] = rate
    rule.decay = True
    for step in range(300):
        rule.progress = 2.0 * step / 300
        rule.absorb(square(seed, step))
    away = torch.cdist(square(seed, 9998, 2000), layer.weight.detach())
    nearest = away.topk(2, largest=False).indices
    rows, columns = nearest // COLUMNS, nearest % COLUMNS
    apart_on_grid = torch.maximum((rows[:, 0] - rows[:, 1]).abs(), (columns[:, 0] - columns[:, 1]).abs()) > 1
    w = layer.weight.detach().view(COLUMNS, COLUMNS, 2)
    beside = torch.cat([(w[1:] - w[:-1]).flatten(0, 1), (w[:, 1:] - w[:, :-1]).flatten(0, 1)]).norm(dim=1).mean()
    any_two = torch.pdist(w.flatten(0, 1)).mean()
    return float(apart_on_grid.double().mean()), float(beside / any_two), float(away.amin(1).mean())


def maps_keep_the_order_of_the_plane() -> Iterator[Check]:
    """A map of 8x8 units on a square: units that are near on the grid end near each other."""
    for average, rate in (("wins", 0.3), ("patches", 5.0)):
        broken, beside, coarse = map_of(0, 3.0, average, rate)
        yield Check(f"{average}: points whose two nearest units are no neighbours", broken, 0.02)
        yield Check(f"{average}: distance of units side by side, over that of any two", beside, 0.3)
        yield Check(f"{average}: mean distance of a point to the nearest unit", coarse, 0.06)
    broken, beside, coarse = map_of(0, 0.0, "wins", 0.3)
    says = "without neighbours"
    yield Check(f"{says}: points whose two nearest units are none", broken, 0.5, "at least", control=True)
    yield Check(f"{says}: distance of units side by side, over that of any two", beside, 0.8, "at least", control=True)
