"""Sleep: forward-forward with its positive and negative phases apart, and what happens when the negatives stop.

Two studies after Hinton 2022 (arXiv 2212.13345, section 8). Phase length: so many steps of positives only, then as many
of negatives only; he found that thousands of steps work only at a very low rate, so each length has the best of several
multiples of the base's rate, on validation. Deprivation: a trained net goes on with positives only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, islice, pairwise
from pathlib import Path

import pandas as pd
import torch
import tyro
from rich.console import Console

from altprop import tasks
from altprop.bench import protocol
from altprop.bench.ablation import difference
from altprop.bench.compare import Observer, carry_out, measured, plan
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.protocol import Budget
from altprop.bench.publish import markdown, write_page, write_rows
from altprop.bench.rates import best_multiples, scaled
from altprop.bench.stats import final, interval, interval_of_all
from altprop.bench.teaching import trained
from altprop.bench.train import Plan, Process
from altprop.report import sleeping
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.tasks import Task
from altprop.terminal import Bars

PROCESS = Process(precision="medium")
PREDICTORS = ("energy", "head")
FOREVER = 2**40
"""A positive phase that no run lives to see the end of."""
BOTH, POSITIVES = "positives and negatives", "positives only"


@dataclass(frozen=True)
class Study:
    """Both studies on one task; small ones for tests."""

    task: str = "mnist"
    width: int = 512
    epochs: int = 6
    seeds: int = 3
    lengths: tuple[int, ...] = (0, 1, 4, 16, 64, 256, 1024)
    multiples: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def setting(self) -> Setting:
        return Setting(self.task, self.data().problem, "mlp", self.width, 2)

    def contender(self, length: int, multiple: float = 1.0) -> Contender:
        """Forward-forward on two hidden blocks, with phases of this length, at a multiple of its rate."""
        base = contender("forward-forward", self.setting())
        return replace(
            base,
            variant=variant(length, multiple),
            widths=(self.width, self.width),
            options={**base.options, "sleep": length},
            optimizer={**base.optimizer, "blocks": scaled(base.optimizer["blocks"], multiple)},
        )

    def plan(self, length: int, multiple: float, seed: int) -> Plan:
        chosen = self.contender(length, multiple)
        return plan(
            chosen, self.setting(), self.data(), seed, Budget(self.epochs, curve=False), PROCESS, "altprop.bench.sleep"
        )


def variant(length: int, multiple: float) -> str:
    return f"{f'phases of {length}' if length else 'both at once'}, rate x {multiple:g}"


# The length of the phases.


def lengths(study: Study, store: Path, observer: Observer | None = None) -> tuple[pd.DataFrame, dict[int, float]]:
    """The runs of every length at its best multiple of the rate, which is chosen with the first seed; and those."""
    probes = {(length, m): study.plan(length, m, 0) for length in study.lengths for m in study.multiples}
    each = list(probes.values())
    best = best_multiples(probes, measured(each, carry_out(each, store, observer), store))
    plans = [study.plan(n, best[n], seed) for seed in range(study.seeds) for n in study.lengths]
    return measured(plans, carry_out(plans, store, observer), store), best


def by_length(frame: pd.DataFrame, best: Mapping[int, float]) -> pd.DataFrame:
    """One row a length and predictor: mean test accuracy with its interval, the rate's multiple, and the mean
    difference to the first length, paired by seed; in per cent."""
    last = final(frame).set_index(["variant", "predictor", "seed"])["value"] * 100
    first = next(iter(best))
    found = []
    for length, multiple in best.items():
        for predictor in PREDICTORS:
            values = last[variant(length, multiple)][predictor]
            mean, low, high = interval_of_all(values)
            gap, below, above = interval_of_all(values - last[variant(first, best[first])][predictor])
            found.append({
                "length": length, "multiple": multiple, "predictor": predictor, "mean": mean, "low": low, "high": high,
                "difference": gap, "below": below, "above": above,
            })  # fmt: skip
    return pd.DataFrame(found)


# Deprivation.


def deprivation(study: Study) -> pd.DataFrame:
    """Test accuracy of a trained net that goes on with both kinds of samples, or with positives only: one row a seed,
    condition, number of steps and predictor. The rate is the one before the last cool-down; the head goes on learning.
    """
    rows = []
    for seed in range(study.seeds):
        with PROCESS.applied(seed):
            awake = trained(study.contender(0), study.setting(), study.data(), study.epochs, seed)
            for condition, length in ((BOTH, 0), (POSITIVES, FOREVER)):
                rule = study.contender(length).build(study.setting(), seed)
                rule.load_state_dict({**rule.state_dict(), **awake.state_dict()})
                rows += [{"seed": seed, "condition": condition, **row} for row in go_on(rule, study, seed)]
    return pd.DataFrame(rows)


def go_on(rule: Rule, study: Study, seed: int) -> list[dict[str, object]]:
    """Accuracies after each number of further steps."""
    data, seed_ = study.data(), protocol.seed_of("data", seed)
    epochs = (data.loader("train", batch_size(study), seed=seed_, epoch=study.epochs + i) for i in count())
    batches = chain.from_iterable(epochs)
    rows: list[dict[str, object]] = []
    rule.progress = 0.0
    for before, goal in pairwise((0, *study.steps)):
        for x, y in islice(batches, goal - before):
            rule.step(x, y)
        rule.eval()
        with torch.no_grad():
            found = {n: accuracy(p, data.test, None, torch.device("cpu")) for n, p in rule.predictors().items()}
        rows += [{"steps": goal, "predictor": name, "value": value} for name, value in found.items()]
    return rows


def batch_size(study: Study) -> int:
    return study.contender(0).batch_size or protocol.DEFAULT_BATCH_SIZE


def by_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a condition, predictor and number of steps: mean accuracy with its interval, in per cent."""
    found = []
    for (condition, predictor, steps), group in rows.groupby(["condition", "predictor", "steps"], sort=False):
        mean, low, high = interval(100 * group["value"])
        found.append({"condition": condition, "predictor": predictor, "steps": steps,
                      "mean": mean, "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(found)


# The page.

HEAD = """# Sleep: positives and negatives apart

Made by `python -m altprop.bench.sleep` (this page too): forward-forward, {task}, two hidden blocks of {width},
{epochs} epochs of batches of {batch}, {seeds} seeds, float32 products at precision "medium", test accuracy at the last
epoch. Forward-forward needs positive and negative samples. Whether it needs them at the same time, which a brain could
not offer, Hinton 2022 left open: an early success with separate phases could not be repeated, and thousands of steps of
each worked only at a very low rate with very high momentum.

## How long a phase may be

So many steps of positives only, then as many of negatives only. Each step sees one batch, so that a net with phases
sees half as many positives, and half as many negatives, as one that has both at once. The rate of the blocks is, for
each length by itself, the best on validation of {multiples} times the usual one, with the same decay a
step; momentum stays at 0.9. A length for which the lowest of these is the best might do better at a lower one still.
Differences are to "both at once", paired by seed, with the Student t 95 % interval.
"""
DEPRIVED = """## Sleep deprivation

A net that was trained with both goes on at its first rate, with both or without negatives. The head goes on learning in
either case. Test accuracy in per cent, by the number of further steps.
"""


def page(study: Study, phases: pd.DataFrame, curves: pd.DataFrame) -> str:
    multiples = ", ".join(f"{m:g}" for m in study.multiples)
    head = HEAD.format(task=study.task, width=study.width, epochs=study.epochs, seeds=study.seeds,
                       batch=batch_size(study), multiples=multiples)  # fmt: skip
    rows = []
    for length, group in phases.groupby("length", sort=False):
        cells = [str(length) if length else "both at once", f"{group['multiple'].iloc[0]:g}"]
        for row in group.to_dict("records"):
            cells += [f"{row['mean']:.2f} %"]
            gap = {"difference": row["difference"], "low": row["below"], "high": row["above"]}
            cells += [difference(gap) if length else ""]
        rows.append(cells)
    columns = ["steps a phase", "rate x", "energy", "difference", "head", "difference"]
    steps = [str(n) for n in curves["steps"].unique()]
    deprived = [
        [str(condition), str(predictor), *(f"{value:.2f}" for value in group["mean"])]
        for (condition, predictor), group in curves.groupby(["condition", "predictor"], sort=False)
    ]
    return "\n\n".join(
        [
            head.rstrip(),
            markdown(columns, rows),
            "![accuracy against the length of a phase](forward-forward-sleep/lengths.png)",
            DEPRIVED.rstrip(),
            markdown(["goes on with", "predictor", *steps], deprived),
            "![accuracy against steps without negatives](forward-forward-sleep/deprivation.png)",
        ]
    )


def run(study: Study, output: Path, store: Path, observer: Observer | None = None) -> None:
    """Both studies, published with their page."""
    folder = output / "forward-forward-sleep"
    frame, best = lengths(study, store, observer)
    write_rows(frame, folder)
    phases = by_length(frame, best)
    deprived = deprivation(study)
    with replaced(folder / "deprivation.csv") as path:
        deprived.to_csv(path, index=False)
    curves = by_steps(deprived)
    sleeping.draw_lengths(phases, folder)
    sleeping.draw_deprivation(curves, folder)
    write_page(output / "forward_forward_sleep.md", page(study, phases, curves))


def main(output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Run both studies and write their page.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    with Bars(Console()) as bars:
        run(Study(), output, store, bars)


if __name__ == "__main__":
    tyro.cli(main)
