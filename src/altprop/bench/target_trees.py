"""Signal propagation's prediction option 2 on many classes: what a tree over the targets loses, and what it saves.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723) compare few targets at early blocks and prune; they give no number.
Here two and three digits side by side are 100 and 1,000 classes. Option 1 compares an input with the target of each
class; option 2 goes down a tree, with one comparison for every node that it looks at, means of groups included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from rich.console import Console

from altprop import tasks
from altprop.bench.ablation import difference
from altprop.bench.compare import Observer, carry_out, measured, plan
from altprop.bench.contender import Card, Contender, Setting, adam
from altprop.bench.contenders import contender
from altprop.bench.evaluate import BATCH
from altprop.bench.protocol import Budget
from altprop.bench.publish import markdown, write_page, write_rows
from altprop.bench.stats import final, interval_of_all
from altprop.bench.store import Store
from altprop.bench.train import Plan, Process, Run
from altprop.report import pruning
from altprop.rules.forward_only.signal_propagation import SignalPropagation
from altprop.tasks import Split, Task
from altprop.terminal import Bars

PROCESS = Process(precision="medium")
COMMAND = "python -m altprop.bench.target_trees"
FOLDER = "target-trees"
MARGIN, MARGINS = 0.1, (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
ACCURACY, COMPARISONS = "accuracy at margin {:g}", "comparisons at margin {:g}"
"""Metrics of option 2 at each margin; comparisons are the mean of an input."""
OPTIONS = {"nearest": "option 1", "adaptive": "option 2", "output": "option 3"}


# Runs that look how the tree is searched.


@dataclass(frozen=True)
class SearchPlan(Plan):
    """A run at whose end the tree is searched with every margin."""

    def key(self) -> str:
        return hashlib.sha256(f"margins {MARGINS} {super().key()}".encode()).hexdigest()

    def run(self, store: Store, run: int, saved: str | None) -> SearchRun:
        return SearchRun(self, store, run, saved)


class SearchRun(Run):
    """Training as ever; the last points have what option 2 finds with each margin, and by how many comparisons."""

    def _points(self) -> list[dict[str, Any]]:
        points = super()._points()
        if self._progress() < 1.0:
            return points
        assert isinstance(self.rule, SignalPropagation)
        return points + [
            {"predictor": "adaptive", "split": split, "metric": metric.format(margin), "value": value}
            for split in ("validation", "test")
            for margin in MARGINS
            for metric, value in searched(self.rule, getattr(self.plan.task, split), margin, self.device).items()
        ]


@torch.no_grad()
def searched(rule: SignalPropagation, split: Split, margin: float, device: torch.device) -> dict[str, float]:
    """The accuracy of option 2 with this margin, and its comparisons, mean of the inputs; by metric."""
    usual, rule.margin = rule.margin, margin
    right = comparisons = 0
    for start in range(0, len(split), BATCH):
        x, y = (t.to(device) for t in split.batch(slice(start, start + BATCH)))
        scores, count = rule.adaptive(x)
        right += int((scores.argmax(1) == y).sum())
        comparisons += int(count.sum())
    rule.margin = usual
    return {ACCURACY: right / len(split), COMPARISONS: comparisons / len(split)}


# The study.


@dataclass(frozen=True)
class Study:
    """Which tasks, and for how long; small ones for tests.

    goals: by task the largest share of option 1's comparisons; points: how far the accuracies may be apart.
    """

    goals: Mapping[str, float]
    widths: tuple[int, ...] = (1000, 500)
    epochs: int = 5
    seeds: int = 3
    points: float = 0.3

    def plans(self) -> list[Plan]:
        """Every run, the seed outermost."""
        found = []
        for seed in range(self.seeds):
            for name, data in self.data.items():
                setting = Setting(name, data.problem, "mlp", max(self.widths), len(self.widths))
                own, budget = chosen(setting, self.widths), Budget(self.epochs, curve=False)
                found.append(plan(own, setting, data, seed, budget, PROCESS, COMMAND, kind=SearchPlan))
        return found

    @cached_property
    def data(self) -> dict[str, Task]:
        return {name: tasks.load(name).flat() for name in self.goals}


STUDY = Study({"mnist-pairs": 1 / 3, "mnist-triples": 1 / 10})


def chosen(setting: Setting, widths: tuple[int, ...]) -> Contender:
    """Signal propagation with fast signals: each of many classes is seen seldom."""
    optimizer = {"blocks": adam(4e-3), "target": adam(1e-1)}
    card = Card(tuning="rates chosen on validation after half an epoch, one seed")
    base = contender("signal-propagation", setting)
    options = {"margin": MARGIN}
    return replace(base, widths=widths, options=options, optimizer=optimizer, batch_size=256, card=card)


def by_margin(frame: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """One row a task, seed and margin: accuracy of option 2 and its difference to option 1, in per cent, and the share
    of option 1's comparisons."""
    rows = frame[frame["split"].eq(split) & frame["samples"].gt(0)]
    values = rows.set_index(["task", "seed", "predictor", "metric"])["value"]
    chances = frame.groupby("task")["chance"].first()
    found = []
    for task, seed in rows[["task", "seed"]].drop_duplicates().itertuples(index=False):
        nearest = 100 * values[task, seed, "nearest", "accuracy"]
        for margin in MARGINS:
            accuracy = 100 * values[task, seed, "adaptive", ACCURACY.format(margin)]
            share = values[task, seed, "adaptive", COMPARISONS.format(margin)] * chances[task]
            found.append({"task": task, "seed": seed, "margin": margin, "accuracy": accuracy,
                          "difference": accuracy - nearest, "share": share})  # fmt: skip
    return pd.DataFrame(found)


# The page.

HEAD = """# A tree over class targets

Made by `{command}` (this page too): signal propagation on {tasks}: digits side by side,
each drawn from the images of its split, {samples:,} training and {tested:,} test samples; hidden blocks of {widths},
{epochs} epochs, {seeds} seeds, float32 products at precision "medium", test accuracy at the last epoch.

Option 1 compares an input with the target of every class at the last block. Option 2 compares it with the means of
groups of targets at earlier blocks, follows the groups whose cosine is within the margin of the nearest one's, and
meets only their classes. Every cosine counts, those with means too. The groups come from the targets alone, not from
data. Option 3 is the output block. The margin is {margin:g}, chosen on validation. Goal: option 2 within {points:g}
points of option 1, at most at the share of its comparisons below. Published: no number; the paper describes the option
(Kohan, Rietman & Siegelmann 2022, arXiv 2204.01723).
"""
SWEEP = """## What the margin trades

Test accuracy of option 2 minus that of option 1, and the share of its comparisons; means over seeds.
"""


def page(study: Study, frame: pd.DataFrame, table: pd.DataFrame) -> str:
    """The study in Markdown."""
    data = study.data.values()
    head = HEAD.format(
        command=COMMAND,
        tasks=" and ".join(f"{task.name} ({task.classes:,} classes)" for task in data),
        samples=len(next(iter(data)).train),
        tested=len(next(iter(data)).test),
        widths=" and ".join(map(str, study.widths)),
        epochs=study.epochs,
        seeds=study.seeds,
        margin=MARGIN,
        points=study.points,
    )
    columns = ["task", *OPTIONS.values(), "2 minus 1", "comparisons", "share", "goal", "reached"]
    sweep = [
        [str(task), *(f"{row['difference']:+.2f} at {100 * row['share']:.1f} %" for _, row in group.iterrows())]
        for task, group in table.groupby(["task", "margin"])[["difference", "share"]].mean().groupby("task")
    ]
    parts = [
        head.rstrip(),
        markdown(columns, lines(study, frame, table)),
        SWEEP.rstrip(),
        markdown(["margin", *(f"{margin:g}" for margin in MARGINS)], sweep),
        f"![accuracy lost against the share of comparisons]({FOLDER}/margins.png)",
    ]
    return "\n\n".join(parts)


def lines(study: Study, frame: pd.DataFrame, table: pd.DataFrame) -> list[list[str]]:
    """One row of cells a task, of the margin that was chosen."""
    test = 100 * final(frame).pivot_table(index=["task", "seed"], columns="predictor", values="value")
    found = []
    for task, goal in study.goals.items():
        own = table[table["task"].eq(task) & table["margin"].eq(MARGIN)]
        gap, low, high = interval_of_all(own["difference"])
        share, classes = own["share"].mean(), study.data[task].classes
        reached = abs(gap) <= study.points and share <= goal
        found.append([
            task,
            *(spread(test.loc[task][predictor]) for predictor in OPTIONS),
            difference({"difference": gap, "low": low, "high": high}),
            f"{share * classes:.1f} of {classes:,}",
            f"{100 * share:.1f} %",
            f"{100 * goal:.1f} %",
            "yes" if reached else "**no**",
        ])  # fmt: skip
    return found


def spread(values: pd.Series[float]) -> str:
    mean, low, high = interval_of_all(values)
    return f"{mean:.2f} ± {(high - low) / 2:.2f} %"


def run(study: Study, output: Path, store: Path, observer: Observer | None = None) -> pd.DataFrame:
    """Train, publish the page with its rows and figure, and return the table of margins."""
    plans = study.plans()
    frame = measured(plans, carry_out(plans, store, observer), store)
    write_rows(frame, output / FOLDER)
    table = by_margin(frame)
    pruning.draw(table, output / FOLDER)
    write_page(output / "target_trees.md", page(study, frame, table))
    return table


def main(output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Train on pairs and triples of digits, and write what the tree loses and saves.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    console = Console()
    with Bars(console) as bars:
        table = run(STUDY, output, store, bars)
    console.print(table.groupby(["task", "margin"]).mean().round(3).to_string())


if __name__ == "__main__":
    tyro.cli(main)
