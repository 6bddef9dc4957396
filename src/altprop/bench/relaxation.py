"""The study of relaxation: how fast it is, how far it goes, and how near to backpropagation what comes out of it is.

1. speed: gradients a CPU second, by hand and by autograd of the whole energy (`relaxation_speed`).
2. sweeps: accuracy, seconds and passes against the number of sweeps, from a feed-forward start and from zero.
3. knob: the weight beta of the output's cost, from backpropagation (beta near 0) to the full equilibrium of predictive
   coding (beta = 1) and beyond; the rate of the weights is chosen for each beta on validation, with the first seed.
4. alignment: each energy-based rule's update beside backpropagation's, block by block, fresh and after training.

Each part writes a CSV, and the page is made from those that are there.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from rich.console import Console
from torch import Tensor

from altprop import tasks
from altprop.analysis.alignment import Gradients, by_backprop, compare, updates
from altprop.analysis.trace import Trace
from altprop.bench import relaxation_page
from altprop.bench.contender import Contender, Setting, adam
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.relaxation_speed import speed
from altprop.bench.teaching import teach
from altprop.bench.train import Process
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.rules.energy.almeida_pineda import AlmeidaPineda
from altprop.rules.energy.bidirectional_predictive_coding import BidirectionalPredictiveCoding
from altprop.rules.energy.hopfield import Hopfield
from altprop.tasks import Task

ALIGNED = (
    "predictive-coding",
    "incremental-predictive-coding",
    "nudged-predictive-coding",
    "error-predictive-coding",
    "adaptive-relaxation",
    "fixed-prediction",
    "z-il",
    "bidirectional-predictive-coding",
    "backward-prediction",
    "difference-target-propagation",
    "dual-propagation",
    "dendritic-microcircuit",
    "equilibrium-propagation",
    "contrastive-hebbian",
    "generec",
    "almeida-pineda",
)


@dataclass(frozen=True)
class Study:
    """What is measured, on which net; small ones for tests."""

    task: str = "mnist"
    widths: tuple[int, ...] = (128, 128, 128)
    epochs: int = 3
    seeds: int = 3
    batch: int = 128
    sweeps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    betas: tuple[float, ...] = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    rules: tuple[str, ...] = ALIGNED
    rounds: int = 25
    settled: Mapping[str, Any] = field(default_factory=lambda: {"order": "gauss-seidel", "sweeps": 24, "rate": 0.5})

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def contender(self, rule: str, lr: float | None = None, **options: Any) -> Contender:
        """The rule's contender on the study's net, with these options."""
        own = contender(rule, self.setting())
        optimizer = own.optimizer if lr is None else {"all": adam(lr, eps=1e-10)}
        return replace(own, widths=self.widths, options={**own.options, **options}, optimizer=optimizer)

    def setting(self) -> Setting:
        return Setting(self.task, self.data().problem, "mlp", self.widths[0], len(self.widths))


@dataclass
class Lesson:
    """A trained rule, its accuracies, and what its training took."""

    rule: Rule
    test: float
    validation: float
    cpu_seconds: float


def taught(study: Study, chosen: Contender, data: Task, seed: int) -> Lesson:
    """Train from the beginning, on one thread; evaluation is off the clock."""
    with Process().applied(seed):
        rule = chosen.build(study.setting(), seed)
        start = time.process_time()
        teach(rule, data, study.batch, study.epochs, seed)
        taken = time.process_time() - start
        rule.eval()
        here = torch.device("cpu")
        test, validation = (accuracy(rule, split, None, here) for split in (data.test, data.validation))
    return Lesson(rule, test, validation, taken)


def sweeps(study: Study) -> Iterator[dict[str, object]]:
    """One row a start, number of sweeps and seed."""
    data = study.data()
    x, y = data.train.batch(slice(0, study.batch))
    for seed in range(study.seeds):
        for number in study.sweeps:
            for start in ("feed-forward", "zero"):
                lesson = taught(study, study.contender("predictive-coding", sweeps=number, start=start), data, seed)
                with Trace({}) as step:
                    residual = lesson.rule.step(x, y)["residual"]
                with torch.no_grad(), Trace({}) as forward:
                    lesson.rule.net(x)
                yield {"start": start, "sweeps": number, "seed": seed, "test": lesson.test,
                       "cpu_seconds": lesson.cpu_seconds, "passes": step.operations / forward.operations,
                       "residual": float(residual)}  # fmt: skip


def knob(study: Study) -> Iterator[dict[str, object]]:
    """One row a cost, beta, seed and block; beta 0 is backpropagation itself."""
    data = study.data()
    x, y = data.train.batch(slice(0, study.batch))
    for output in ("squared", "cross-entropy"):
        for beta in (0.0, *study.betas):
            made = _with_beta(study, output, beta)
            lessons = {rate: taught(study, made(rate), data, 0) for rate in study.rates}
            best = max(lessons, key=lambda rate: lessons[rate].validation)
            for seed in range(study.seeds):
                lesson = lessons[best] if seed == 0 else taught(study, made(best), data, seed)
                found, residual = updates(lesson.rule, x, y)
                for row in compare(found, by_backprop(lesson.rule, x, y)):
                    yield {"output": output, "beta": beta, "seed": seed, "test": lesson.test, "rate": best,
                           "block": row.part, "cosine": row.cosine, "ratio": row.ratio,
                           "residual": residual}  # fmt: skip


def _with_beta(study: Study, output: str, beta: float) -> Callable[[float], Contender]:
    if beta == 0.0:
        return lambda lr: study.contender("fixed-prediction", lr, output=output)
    return lambda lr: study.contender("predictive-coding", lr, output=output, beta=beta, **study.settled)


def alignment(study: Study) -> Iterator[dict[str, object]]:
    """One row a rule, moment and block: its contender's update beside backpropagation's."""
    data = study.data()
    x, y = data.train.batch(slice(0, study.batch))
    for name in study.rules:
        chosen = study.contender(name)
        fresh = chosen.build(study.setting(), 0)
        for moment, rule in (("fresh", fresh), ("trained", taught(study, chosen, data, 0).rule)):
            found, residual = updates(rule, x, y)
            for row in compare(found, exact(rule, x, y)):
                yield {"rule": name, "moment": moment, "block": row.part, "cosine": row.cosine,
                       "ratio": row.ratio, "residual": residual}  # fmt: skip


def exact(rule: Rule, x: Tensor, y: Tensor) -> Gradients:
    """The gradient of the loss of what the rule predicts with: of settled states, by an adjoint that settles too, where
    it predicts by settling; else backpropagation's through the forward pass."""
    if isinstance(rule, BidirectionalPredictiveCoding):
        return by_backprop(rule, x, y, cost="squared")
    if not isinstance(rule, Hopfield):
        return by_backprop(rule, x, y)
    settled = AlmeidaPineda(rule.net, rule.problem, feedback=rule.feedback, sweeps=2000, tolerance=1e-6)
    return updates(settled, x, y)[0]


PARTS: Mapping[str, Callable[[Study], pd.DataFrame]] = {
    "speed": lambda study: speed(study.rounds),
    "sweeps": lambda study: pd.DataFrame(sweeps(study)),
    "knob": lambda study: pd.DataFrame(knob(study)),
    "alignment": lambda study: pd.DataFrame(alignment(study)),
}


def run(study: Study, output: Path, parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure these parts, and write the page from all that are there."""
    folder = output / relaxation_page.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        table = PARTS[part](study)
        with replaced(folder / f"{part}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g")
    relaxation_page.write(output)


def main(output: Path = Path("docs/results"), parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure how predictive coding relaxes, and write the page with its rows and figures.

    Args:
        output: the folder for what is published.
        parts: speed, sweeps, knob, alignment; those that are not measured anew stay as they are.
    """
    run(Study(), output, parts)
    Console().print(f"written: {output / relaxation_page.FILE}")


if __name__ == "__main__":
    tyro.cli(main)
