"""Competitive learning against samples one by one, surrogates, k-means, and the fixed points that the papers prove."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.oracles.one_by_one import (
    LAYERS,
    Naive,
    against,
    cosine,
    distance,
    dot,
    draw,
    hot,
    made,
    one,
    one_by_one,
    patches,
    settled,
    subject,
    with_weights,
)
from altprop.rule import Problem
from altprop.rules.hebbian.bcm import BCM
from altprop.rules.hebbian.competitive import CompetitiveLearning
from altprop.rules.hebbian.soft_wta import SoftWTA


def competitive_learning_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops, for each similarity, competition and pull."""

    similarities: dict[str, Naive] = {"dot": dot, "cosine": cosine, "distance": distance}
    for name, s in similarities.items():

        def two_best(w: Tensor, x: Tensor, s: Naive = s) -> Tensor:
            return hot(s(w, x), 2)

        def shares(w: Tensor, x: Tensor, s: Naive = s) -> Tensor:
            return torch.softmax(3.0 * s(w, x), 0)

        for pull, drawn in (("instar", one), ("oja", dot)):
            options: dict[str, Any] = {"similarity": name, "pull": pull, "average": "patches"}
            says = f"{name}, two winners, {pull}"
            yield from against(CompetitiveLearning, one_by_one(two_best, drawn), says, winners=2, **options)
            options |= {"competition": "soft", "inverse_temperature": 3.0}
            yield from against(CompetitiveLearning, one_by_one(shares, drawn), f"{name}, soft, {pull}", **options)


def averages_of_competitive_learning_equal_samples_one_by_one() -> Iterator[Check]:
    """Means over what each unit won, in this batch or ever, and thresholds, in plain loops over two batches."""
    for average in ("wins", "history"):
        for name, arguments in LAYERS.items():
            options: dict[str, Any] = {"average": average, "homeostasis": 0.5, "similarity": "distance"}
            rule, layer, x = subject(CompetitiveLearning, *made(arguments), **options)
            layer.weight.data[4] += 10.0  # too far to win anything
            w, thresholds, ever = layer.weight.detach().flatten(1).clone(), torch.zeros(5).double(), [0] * 5
            for inputs in (x, 0.7 * x.flip(0) + 0.1):
                won: list[list[Tensor]] = [[] for _ in range(5)]
                rows = patches(layer, inputs)
                for sample in rows:
                    won[int((distance(w, sample) - thresholds).argmax())].append(sample)
                for k, mine in enumerate(won):
                    ever[k] += len(mine)
                    size = len(mine) if average == "wins" else ever[k]
                    if mine:
                        w[k] += torch.stack([sample - w[k] for sample in mine]).sum(0) / size
                    thresholds[k] += 0.5 * (len(mine) / len(rows) - 1 / 5)
                rule.absorb(inputs)
            yield Check(f"{average}, {name}: weights", apart(layer.weight.detach().flatten(1), w), 1e-12)
            found = rule.get_buffer("thresholds_0")
            yield Check(f"{average}, {name}: thresholds", apart(found, thresholds), 1e-12)
            yield Check(f"{average}, {name}: wins of a unit that is far away", float(ever[4]), 0.0)


def competitive_learning_equals_its_surrogate() -> Iterator[Check]:
    """Its change, and autograd of Miconi's surrogate: half the squared response whose value is overwritten."""
    for name, arguments in LAYERS.items():
        for pull in ("instar", "oja"):
            options: dict[str, Any] = {"similarity": "dot", "pull": pull, "average": "patches"}
            rule, layer, x = subject(CompetitiveLearning, *made(arguments), **options)
            u = layer(x)
            y = torch.zeros_like(u).scatter_(1, u.argmax(1, keepdim=True), 1.0)
            squares = layer.weight.flatten(1).square().sum(1).view(-1, *[1] * (u.dim() - 2)) / 2
            response = u - squares * (1.0 if pull == "instar" else u.detach())
            overwritten = response + (y - response).detach()
            (gradient,) = torch.autograd.grad(overwritten.square().sum() / 2, layer.weight)
            with torch.no_grad():
                found = rule.change(0, layer, x, u.detach())
            yield Check(f"{pull}, {name}", apart(found, gradient * u.shape[1] / u.numel()), 1e-12)


def winner_take_all_is_k_means() -> Iterator[Check]:
    """Online k-means, one sample at a time, on six clusters, and their centroids by Lloyd's algorithm."""
    centres = 4.0 * torch.eye(6, 8, dtype=torch.float64)
    x = torch.cat([c + 0.1 * draw(50, 8, seed=i) for i, c in enumerate(centres)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first = torch.stack([x[50 * i] for i in range(6)])
    layer = with_weights(first)
    rule, _, _ = subject(CompetitiveLearning, layer, (8,), average="history")
    for i in order.tolist():
        rule.absorb(x[i : i + 1])
    centroids = first
    for _ in range(20):
        nearest = torch.cdist(x, centroids).argmin(1)
        centroids = torch.stack([x[nearest == k].mean(0) for k in range(6)])
    yield Check("weights, and centroids", apart(layer.weight.detach(), centroids), 1e-12)
    yield Check("patches that each unit won, and 50", float((rule.wins(0) - 50).abs().max()), 0.0)


def patterns(labels: Tensor, step: int) -> Tensor:
    return torch.eye(2, dtype=torch.float64)[labels[step]]


def bcm_selects_one_of_two_patterns() -> Iterator[Check]:
    """Of two orthogonal patterns, each half of the time, one is answered by 1 / probability = 2, the other by 0."""
    for seed in range(3):
        layer = with_weights(0.5 + 0.1 * draw(1, 2, seed=seed))
        options = {"competition": "none", "normalise": False, "memory": 0.8}
        rule, _, _ = subject(BCM, layer, (2,), **options)
        rule.optimizers["blocks.0"].param_groups[0]["lr"] = 0.03
        labels = torch.randint(2, (2500, 8), generator=torch.Generator().manual_seed(seed))
        settled(rule, partial(patterns, labels), len(labels))
        low, high = sorted(layer.weight.flatten().tolist())
        yield Check(f"the larger response and 2, seed {seed}", abs(high - 2.0), 0.1)
        yield Check(f"the smaller response and 0, seed {seed}", abs(max(low, 0.0)), 0.05)


def bcm_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops."""
    for competition, normalise in (("none", False), ("hard", False), ("hard", True)):

        def naive(w: Tensor, x: Tensor, hard: bool = competition == "hard", unit: bool = normalise) -> Tensor:
            y = torch.stack([(w @ v).clamp_min(0.0) * (hot(w @ v) if hard else 1.0) for v in x])
            theta = (y**2).mean(0)
            change = torch.zeros_like(w)
            for sample, response in zip(x, y, strict=True):
                for k in range(len(w)):
                    change[k] += response[k] * (response[k] - theta[k]) * sample
            return change / change.abs().max() if unit else change / len(x)

        says = f"competition {competition}{', normalised' if normalise else ''}"
        yield from against(BCM, naive, says, competition=competition, normalise=normalise)


def soft_winner_take_all_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and what the winners of all columns leave unexplained of each sample, in plain loops."""
    for columns in (1, 3):
        layer = with_weights(draw(6, 8, seed=2))
        net = nn.Sequential(nets.Block(layer, activation=nn.Identity()))
        sgd = partial(torch.optim.SGD, lr=1.0)
        rule = SoftWTA(net, Problem((8,), 3), columns=columns, inverse_temperature=4.0, optimizer=sgd)
        x, w = draw(7, 8, seed=1), layer.weight.detach().clone()
        rows = [(sample - sample.mean()) / (sample - sample.mean()).norm() for sample in x]
        answers = []
        for sample in rows:
            u = w @ sample
            shares = torch.cat([torch.softmax(4.0 * column, 0) for column in u.chunk(columns)])
            answers.append(shares * u.clamp_min(0.0))
        y = torch.stack(answers)
        sizes = torch.stack([sum(row[k] * row.sum() for row in y) for k in range(6)])
        change = torch.zeros_like(w)
        for sample, row in zip(rows, y, strict=True):
            left = sample - sum(row[j] * w[j] for j in range(6))
            for k in range(6):
                change[k] += row[k] * left / (sizes[k] + sizes.mean())
        rule.block(0, x, rate=1.0)
        yield Check(f"{columns} columns: change", apart(layer.weight.detach() - w, change), 1e-12)
