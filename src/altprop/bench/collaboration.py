"""Layer collaboration, block by block: the same net, recipe and seeds, with and without it.

Lorberbom et al. 2023 (arXiv 2305.12393): the goodness of the other blocks enters each block's probability. Measured is
what each block's goodness alone says about the class, what all of them say together, and what the rule says by what it
reads. Either way has a rate and a threshold of its own, chosen on validation with the first seed.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import torch
import tyro
from rich.console import Console
from torch import Tensor

from altprop import tasks
from altprop.bench.ablation import difference
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.portraits import goodness
from altprop.bench.protocol import TRAIN_EVALUATED
from altprop.bench.publish import markdown, write_page
from altprop.bench.rates import scaled
from altprop.bench.stats import interval
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.report import collaborating
from altprop.report.replace import replaced
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.tasks import Split, Task

PROCESS = Process(precision="medium")
ALONE, COLLABORATING = "alone", "collaborating"
ALL = "all blocks"


@dataclass(frozen=True)
class Study:
    """Which net, and for how long; small ones for tests."""

    task: str = "mnist"
    width: int = 512
    depth: int = 3
    epochs: int = 12
    seeds: int = 3
    multiples: tuple[float, ...] = (1.0, 2.0)
    thresholds: tuple[float, ...] = (0.5, 1.0)

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def contender(self, setting: Setting, condition: str, multiple: float, threshold: float) -> Contender:
        base = contender("forward-forward", setting)
        return replace(
            base,
            variant=condition,
            widths=(self.width,) * self.depth,
            options={**base.options, "collaborate": condition == COLLABORATING, "threshold": threshold},
            optimizer={**base.optimizer, "blocks": scaled(base.optimizer["blocks"], multiple)},
        )

    def trained(self, data: Task, condition: str, multiple: float, threshold: float, seed: int) -> ForwardForward:
        setting = Setting(self.task, data.problem, "mlp", self.width, self.depth)
        with PROCESS.applied(seed):
            own = self.contender(setting, condition, multiple, threshold)
            rule = trained(own, setting, data, self.epochs, seed)
        assert isinstance(rule, ForwardForward)
        return rule


@torch.no_grad()
def scores(rule: ForwardForward, x: Tensor) -> dict[str, Tensor]:
    """Shape (batch, classes) each: by every block's goodness alone, by all together, and by the predictors."""
    each: dict[int, list[Tensor]] = {i: [] for i in rule.learners}
    for label in range(rule.problem.outputs):
        for i, found in goodness(rule, x, torch.full((len(x),), label)).items():
            each[i].append(found)
    blocks = {f"block {n}": torch.stack(found, 1) for n, found in enumerate(each.values(), 1)}
    together = torch.stack(list(blocks.values())).sum(0)
    return {**blocks, ALL: together, **{name: predict(x) for name, predict in rule.predictors().items()}}


def accuracies(rule: ForwardForward, split: Split, limit: int) -> dict[str, float]:
    x, y = split.batch(slice(0, limit))
    return {name: float((found.argmax(1) == y).double().mean()) for name, found in scores(rule, x).items()}


def chosen(study: Study, data: Task, condition: str) -> tuple[tuple[float, float], ForwardForward]:
    """The rate's multiple and the threshold at which all blocks together are best on validation, and that run's net."""
    found = []
    for setting in product(study.multiples, study.thresholds):
        rule = study.trained(data, condition, *setting, seed=0)
        found.append((accuracies(rule, data.validation, len(data.validation))[ALL], setting, rule))
    _, best, rule = max(found, key=lambda one: one[0])
    return best, rule


def rows(study: Study) -> pd.DataFrame:
    """One row a seed, condition and way to read the net: accuracy on test and on train."""
    data, found = study.data(), []
    for condition in (ALONE, COLLABORATING):
        best, first = chosen(study, data, condition)
        for seed in range(study.seeds):
            rule = study.trained(data, condition, *best, seed) if seed else first
            test = accuracies(rule, data.test, len(data.test))
            train = accuracies(rule, data.train, TRAIN_EVALUATED)
            same = {"seed": seed, "condition": condition, "multiple": best[0], "threshold": best[1]}
            found += [{**same, "read": name, "test": test[name], "train": train[name]} for name in test]
    return pd.DataFrame(found)


def compared(found: pd.DataFrame) -> pd.DataFrame:
    """One row a way to read the net: both means on test, and the paired difference with its interval; in per cent."""
    table = []
    for read, group in found.groupby("read", sort=False):
        test = 100 * group.pivot_table(index="seed", columns="condition", values="test")
        mean, low, high = interval((test[COLLABORATING] - test[ALONE]).to_numpy())
        means = {condition: test[condition].mean() for condition in (ALONE, COLLABORATING)}
        table.append({"read": read, **means, "difference": mean, "low": low, "high": high})
    return pd.DataFrame(table)


HEAD = """# Layer collaboration, block by block

Made by `python -m altprop.bench.collaboration` (this page too): forward-forward, {task}, {depth} blocks of {width},
{epochs} epochs, {seeds} seeds, float32 products at precision "medium", test accuracy at the last epoch. Collaborating,
the goodness of the other blocks enters each block's probability (Lorberbom et al. 2023, arXiv 2305.12393). "Block 1"
and so on: the class with which that block's goodness alone is largest; "all blocks": the class with which their sum is,
which is what collaborating blocks learn. Energy and head leave out the first block. The blocks' rate (times
{multiples}) and threshold (times {thresholds}) are, for either by itself, the best on validation by all blocks with the
first seed: {alone} alone, {collaborating} collaborating. Differences are paired by seed, with the
Student t 95 % interval.
"""


def page(study: Study, found: pd.DataFrame, table: pd.DataFrame) -> str:
    best = {
        str(condition): f"rate x {group['multiple'].iloc[0]:g} and threshold x {group['threshold'].iloc[0]:g}"
        for condition, group in found.groupby("condition")
    }
    tried = {name: ", ".join(f"{v:g}" for v in getattr(study, name)) for name in ("multiples", "thresholds")}
    head = HEAD.format(task=study.task, depth=study.depth, width=study.width, epochs=study.epochs, seeds=study.seeds,
                       **tried, **best)  # fmt: skip
    body = [
        [str(row["read"]), f"{row[ALONE]:.2f} %", f"{row[COLLABORATING]:.2f} %", difference(row)]
        for row in table.to_dict("records")
    ]
    picture = "![accuracy block by block](forward-forward-collaboration/blocks.png)"
    return "\n\n".join([head.rstrip(), markdown(["read by", ALONE, COLLABORATING, "difference"], body), picture])


def run(study: Study, output: Path) -> pd.DataFrame:
    """Train, publish the page with its rows and figure, and return the table."""
    found = rows(study)
    folder = output / "forward-forward-collaboration"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "rows.csv") as path:
        found.to_csv(path, index=False)
    table = compared(found)
    collaborating.draw(found, folder)
    write_page(output / "forward_forward_collaboration.md", page(study, found, table))
    return table


def main(output: Path = Path("docs/results")) -> None:
    """Train with and without collaboration, and write the page.

    Args:
        output: the folder for what is published.
    """
    Console().print(run(Study(), output).round(2).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
