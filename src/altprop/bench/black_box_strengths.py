"""Accuracy against the strength of a box: noise on every product, rounding, distortion, and distortion on another copy.

Every method has the best of several multiples of its tuned rate, chosen on validation with the first seed at strength
0, where all boxes are the same net.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from altprop import tasks
from altprop.bench.black_box_methods import FITTED, FORWARD, METHODS, STRAIGHT, Method
from altprop.bench.compare import Observer, carry_out, measured, plan
from altprop.bench.contender import Setting
from altprop.bench.protocol import TRAIN_EVALUATED, Budget
from altprop.bench.rates import best_multiples
from altprop.bench.stats import final, interval_of_all
from altprop.bench.train import Plan, Process
from altprop.tasks import Task

COMMAND = "python -m altprop.bench.black_boxes"
OWN, OTHER = (0, 0), (0, 1)
"""Copies of the hardware: predicting on the one that it was trained on, or on another."""


@dataclass(frozen=True)
class Place:
    """One box at one strength. moved: the weights predict on another copy than the one that they were trained on."""

    box: str
    strength: float
    moved: bool = False

    @property
    def name(self) -> str:
        return f"{self.box} {self.strength:g}" + (", moved" if self.moved else "")

    @property
    def panel(self) -> str:
        """What it is a point of."""
        return f"{self.box}, moved" if self.moved else self.box


PLAIN = Place("distorted", 0.0)


@dataclass(frozen=True)
class Strengths:
    """Which boxes, how strong, on which net, and for how long; small ones for tests."""

    task: str = "digits"
    width: int = 64
    depth: int = 2
    epochs: int = 10
    seeds: int = 3
    multiples: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    methods: tuple[Method, ...] = METHODS
    strengths: Mapping[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "noisy": (0.25, 0.5, 1.0),
            "quantised": (1.0, 2.0, 4.0),
            "distorted": (0.5, 1.0, 2.0),
        }
    )

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def places(self) -> list[Place]:
        """The plain net, every box at every strength, and the distortions once more for weights that are moved."""
        found = [Place(box, s) for box, strengths in self.strengths.items() for s in strengths]
        return [PLAIN, *found, *(Place(p.box, p.strength, moved=True) for p in found if p.box == "distorted")]

    def plan(self, method: Method, place: Place, multiple: float, seed: int) -> Plan:
        data = self.data()
        setting = Setting(self.task, data.problem, "black-box", self.width, self.depth)
        hardware = {"box": place.box, "strength": place.strength, "copies": OTHER if place.moved else OWN}
        chosen = method.contender(setting, where(place, multiple), hardware, multiple)
        return plan(chosen, setting, data, seed, Budget(self.epochs, curve=False), Process(), COMMAND)


def where(place: Place, multiple: float) -> str:
    return f"{place.name}, rate x {multiple:g}"


def tried(method: Method, place: Place) -> bool:
    """Noise has no mean: a model that is fitted to a noisy layer is the layer itself, as it is straight through. And
    forward-forward takes a sample's product with the first layer once for all labels."""
    return not (method in (FITTED, FORWARD) and place.box == "noisy")


@torch.no_grad()
def activity(study: Strengths) -> float:
    """The root mean square of the hidden activities of the untrained, plain net of the first seed, on training data."""
    made = study.plan(STRAIGHT, PLAIN, 1.0, 0)
    h, _ = made.task.train.batch(slice(0, TRAIN_EVALUATED))
    squares = []
    for block in list(made.contender.network(made.setting, 0))[:-1]:
        h = block(h)
        squares.append(h.square().mean())
    return float(torch.stack(squares).mean().sqrt())


def carry_all(plans: Iterable[Plan], store: Path, observer: Observer | None) -> pd.DataFrame:
    """The points of these runs."""
    each = list(plans)
    return measured(each, carry_out(each, store, observer), store)


def runs(study: Strengths, store: Path, observer: Observer | None = None) -> tuple[pd.DataFrame, dict[Method, float]]:
    """The runs of every method at every place, at its best multiple of the rate; and those multiples."""
    probes = {(method, m): study.plan(method, PLAIN, m, 0) for method in study.methods for m in study.multiples}
    best = best_multiples(probes, carry_all(probes.values(), store, observer))
    plans = [
        study.plan(method, place, best[method], seed)
        for seed in range(study.seeds)
        for place in study.places()
        for method in study.methods
        if tried(method, place)
    ]
    return carry_all(plans, store, observer), best


def by_strength(study: Strengths, frame: pd.DataFrame, best: Mapping[Method, float]) -> pd.DataFrame:
    """One row a panel, method and strength: mean test accuracy with its interval, in per cent.

    The plain net stands in every panel, at strength 0.
    """
    last = final(frame).set_index(["rule", "variant", "predictor"])["value"].sort_index() * 100
    panels = {p.panel: [PLAIN] for p in study.places() if p != PLAIN}
    for place in study.places():
        if place != PLAIN:
            panels[place.panel].append(place)
    found = []
    for panel, places in panels.items():
        for method in study.methods:
            for place in places:
                if tried(method, Place(panel, 1.0)):
                    values = last[method.rule, method.variant(where(place, best[method])), method.predictor]
                    mean, low, high = interval_of_all(values)
                    found.append({"panel": panel, "method": method.name, "strength": place.strength,
                                  "mean": mean, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(found)
