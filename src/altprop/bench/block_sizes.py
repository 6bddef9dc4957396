"""The study of the block-size knob: accuracy and memory of local classifiers, from one block a module to the whole net.

With the whole net a module it is backpropagation. Beside it stand backpropagation and its three controls: the same
losses with nothing cut off, activations computed again instead of kept, and the batch in parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from rich.console import Console

from altprop import tasks
from altprop.bench import meter
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import markdown, write_page
from altprop.bench.stats import interval, paired
from altprop.bench.teaching import teach
from altprop.bench.train import Process
from altprop.report import knobs
from altprop.report.replace import replaced
from altprop.tasks import Task

FOLDER, FILE = "block_sizes", "block_sizes.md"
CONTROLS = ("backprop", "deep-supervision", "checkpointed-backprop", "accumulated-backprop")
PARTS = 16


@dataclass(frozen=True)
class Study:
    """The net and its training; small ones for tests."""

    task: str = "mnist"
    width: int = 256
    blocks: int = 8
    epochs: int = 3
    seeds: int = 3
    batch: int = 128
    large: int = 1024
    """A batch on which the memory of a step is measured again: there activities outweigh gradients."""

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def setting(self) -> Setting:
        return Setting(self.task, self.data().problem, "mlp", self.width, self.blocks - 1)

    def sizes(self) -> list[int]:
        """1, 2, 4, ... and the whole net."""
        return [*(2**k for k in range(self.blocks) if 2**k < self.blocks), self.blocks]

    def lanes(self) -> Iterator[tuple[str, int, Contender]]:
        """What is compared, how many blocks make a module (0: there are none), and with which settings."""
        for size in self.sizes():
            yield "local-classifier", size, self.contender("local-classifier", block_size=size)
        for rule in CONTROLS:
            yield rule, 0, self.contender(rule)
        yield f"accumulated-backprop, {PARTS} parts", 0, self.contender("accumulated-backprop", micro_batches=PARTS)

    def contender(self, rule: str, **options: Any) -> Contender:
        """All with the optimizer of backpropagation, so that the rules differ in nothing else."""
        same, own = contender("backprop", self.setting()), contender(rule, self.setting())
        return replace(own, optimizer=same.optimizer, schedule=same.schedule, options={**own.options, **options})


def measure(study: Study) -> Iterator[dict[str, object]]:
    """One row a rule, size and seed."""
    data, setting = study.data(), study.setting()
    small, large = (data.train.batch(slice(0, size)) for size in (study.batch, study.large))
    for seed in range(study.seeds):
        for rule, size, chosen in study.lanes():
            with Process().applied(seed):
                built = chosen.build(setting, seed)
                cost, more = meter.cost(built, *small), meter.cost(built, *large)
                teach(built, data, study.batch, study.epochs, seed)
                test = accuracy(built.eval(), data.test, None, torch.device("cpu"))
            only = cost.parameters - cost.parameters_inference
            yield {"rule": rule, "block_size": size, "seed": seed, "test": test, "peak_bytes": cost.peak_step_bytes,
                   "large_peak_bytes": more.peak_step_bytes, "operations": cost.step_operations,
                   "training_only": only}  # fmt: skip


def page(table: pd.DataFrame, study: Study) -> str:
    """The study in Markdown."""
    plain = table[table["rule"] == "backprop"].iloc[0]
    rows = []
    for (rule, size), group in table.groupby(["rule", "block_size"], sort=False):
        mean, low, high = interval(100 * group["test"])
        first = group.iloc[0]
        rows.append([str(rule), str(size) if size else "", f"{mean:.2f} %",
                     f"{low:.2f} to {high:.2f}" if len(group) > 1 else "", f"{first['peak_bytes']:,}",
                     f"{first['peak_bytes'] / plain['peak_bytes']:.2f}", f"{first['large_peak_bytes']:,}",
                     f"{first['large_peak_bytes'] / plain['large_peak_bytes']:.2f}",
                     f"{first['operations'] / plain['operations']:.2f}", f"{first['training_only']:,}"])  # fmt: skip
    many = f"with {study.large:,} samples"
    head = ["rule", "blocks a module", "test", "interval", "peak bytes of a step", "of backprop's", many,
            "of backprop's", "operations, of backprop's", "values that only training has"]  # fmt: skip
    return f"""# Accuracy and memory against the size of a module

Made by `python -m altprop.bench.block_sizes` (this page too). {study.task}, a perceptron of {study.blocks} blocks with
{study.width} hidden units each (the output block counts), relu, {study.epochs} epochs, {study.seeds} seeds, batches of
{study.batch}, the optimizer of backpropagation's contender for all, test accuracy at the last epoch. Peak bytes are
those of one step, without parameters, optimizer state and the batch, with {study.batch} samples, of which gradients of
weights need the most, and with {study.large:,}, of which activities do. A module is a row of blocks that learns by a
linear classifier of its own; with {study.blocks} blocks a module local classifiers are backpropagation.

A claim about memory has to be set against the controls: deep supervision has the same losses with nothing cut off,
checkpointed backpropagation computes activities again, accumulated backpropagation takes the batch in parts, four if no
number is given.

{markdown(head, rows)}

- With {study.batch} samples: {verdict(table, "peak_bytes")}
- With {study.large:,} samples: {verdict(table, "large_peak_bytes")}

![accuracy against peak bytes]({FOLDER}/block_sizes.png)
"""


def verdict(table: pd.DataFrame, column: str) -> str:
    """Which controls need no more of these bytes than the smallest module, and how accurate they are beside it."""
    local = table[(table["rule"] == "local-classifier") & (table["block_size"] == 1)]
    found = []
    for rule, own in table[table["block_size"] == 0].groupby("rule", sort=False):
        if own[column].mean() <= local[column].mean():
            gap, low, high = (100 * value for value in paired(own, local, "test"))
            words = "more accurate" if low > 0 else "less accurate" if high < 0 else "within chance"
            found.append(f"{rule} ({gap:+.2f} points of accuracy, {low:+.2f} to {high:+.2f}: {words})")
    if found:
        return f"controls that need no more bytes than one block a module: {'; '.join(found)}."
    return "no control needs as few bytes as one block a module."


def run(study: Study, output: Path) -> None:
    """Measure, and write the rows, the figure and the page."""
    table = pd.DataFrame(measure(study))
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "rows.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    knobs.draw_block_sizes(table, folder, (study.batch, study.large))
    write_page(output / FILE, page(table, study))


def main(output: Path = Path("docs/results")) -> None:
    """Measure accuracy and memory against the size of a module, and write the page with its rows and figure.

    Args:
        output: the folder for what is published.
    """
    run(Study(), output)
    Console().print(f"written: {output / FILE}")


if __name__ == "__main__":
    tyro.cli(main)
