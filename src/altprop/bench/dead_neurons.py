"""Dead neurons: the share of spiking units that never fire, while a spiking net learns in four ways.

A unit that never fires hands nothing on, and a rule that learns through the spike's derivative (or through a surrogate
that is flat far from the threshold) may never wake it. A loss at the voltage reaches it all the same (Kohan, Rietman &
Siegelmann 2022, arXiv 2204.01723).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn

from altprop import nets, tasks
from altprop.bench.contender import Contender, Setting
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import markdown, write_page
from altprop.bench.signal_propagation_family import spiking, spiking_backprop
from altprop.bench.stats import interval
from altprop.bench.teaching import lessons
from altprop.bench.train import Process
from altprop.report import dying
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.tasks import Task

PROCESS = Process()
BATCH = 128


@dataclass(frozen=True)
class Study:
    """Four ways to learn, on nets of each threshold; small ones for tests."""

    task: str = "mnist"
    width: int = 500
    epochs: int = 1
    seeds: int = 3
    thresholds: tuple[float, ...] = (1.0, 3.0)
    images: int = 1000
    looks: tuple[int, ...] = (0, 500, 1_500, 5_000, 15_000)

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def setting(self) -> Setting:
        return Setting(self.task, self.data().problem, "spiking", self.width, 2)


def columns(setting: Setting) -> dict[str, Contender]:
    """The four ways, by the words above their columns."""
    return {
        "signal propagation,\nvoltage": spiking(setting, "voltage"),
        "signal propagation,\nsurrogate": spiking(setting, "surrogate"),
        "backprop,\nsurrogate": spiking_backprop(setting, True),
        "backprop,\nno surrogate": spiking_backprop(setting, False),
    }


@torch.no_grad()
def dead(net: nn.Sequential, x: Float[Tensor, "batch inputs"]) -> list[float]:
    """For each block of spiking units: the share that fires for none of the inputs at any time."""
    found = []
    for block in net:
        x = block(x)
        if any(isinstance(module, nets.LeakyIntegrateAndFire) for module in block.modules()):
            found.append(float((x == 0).all(0).all(0).double().mean()))
    return found


def measure(study: Study) -> Iterator[dict[str, object]]:
    """One row a way, threshold, seed, number of samples and block."""
    data, setting = study.data(), study.setting()
    x, _ = data.validation.batch(slice(0, study.images))
    for seed in range(study.seeds):
        for threshold in study.thresholds:
            for name, chosen in columns(setting).items():
                options = {**chosen.net_options, "threshold": threshold}
                with PROCESS.applied(seed):
                    rule = replace(chosen, net_options=options).build(setting, seed)
                    for samples in watched(rule, study, data, seed):
                        shares = dead(rule.eval().net, x)
                        test = accuracy(rule, data.test, None, torch.device("cpu"))
                        for block, share in enumerate(shares, 1):
                            yield {"column": name, "threshold": threshold, "seed": seed, "samples": samples,
                                   "block": block, "dead": share, "test": test}  # fmt: skip


def watched(rule: Rule, study: Study, data: Task, seed: int) -> Iterator[int]:
    """Train, and stop to look as soon as so many samples have been seen."""
    total = study.epochs * len(data.train)
    due = [*(look for look in study.looks if look < total), total]
    for samples in lessons(rule, data, BATCH, study.epochs, seed):
        if samples >= due[0]:
            yield samples
            due.pop(0)


def page(table: pd.DataFrame, study: Study) -> str:
    """The study in Markdown."""
    last = table[table["samples"] == table["samples"].max()]
    first = table[table["samples"] == 0].groupby(["column", "threshold", "block"])["dead"].mean()
    lines = []
    for (threshold, column), group in last.groupby(["threshold", "column"], sort=False):
        each = 100 * group.drop_duplicates("seed")["test"]
        mean, low, high = interval(each)
        shares = [
            f"{100 * first[column, threshold, block]:.1f} to {100 * share:.1f} %"
            for block, share in group.groupby("block")["dead"].mean().items()
        ]
        spread = f"{low:.2f} to {high:.2f}" if len(each) > 1 else ""
        lines.append([f"{threshold:g}", column.replace("\n", " "), *shares, f"{mean:.2f} %", spread])
    blocks = [f"dead in block {block}" for block in sorted(table["block"].unique())]
    return f"""# Dead neurons

Made by `python -m altprop.bench.dead_neurons` (this page too). {study.task}, two blocks of {study.width} leaky
integrate-and-fire neurons, {study.epochs} epoch(s), {study.seeds} seeds. Dead: units that fire for none of
{study.images:,} validation images at any time step; from before training to its end, mean of the seeds. The higher
threshold begins with nearly all of the second block dead. Test accuracy by the output block at the end, with the
Student t 95 % interval. Published: no number; the paper says that its spiking solutions avoid dead neurons (arXiv
2204.01723).

{markdown(["threshold", "learns by", *blocks, "test", "interval"], lines)}

![share of dead neurons through training](dead-neurons/dead.png)
"""


def run(study: Study, output: Path) -> pd.DataFrame:
    """Measure, and write the page with its rows and figure."""
    table = pd.DataFrame(measure(study))
    folder = output / "dead-neurons"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "rows.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    dying.draw(table, folder)
    write_page(output / "dead_neurons.md", page(table, study))
    return table


def main(output: Path = Path("docs/results"), seeds: int = 3, epochs: int = 1) -> None:
    """Train spiking nets in four ways, and write how many of their units never fire.

    Args:
        output: the folder for what is published.
        seeds: how many nets of each kind.
        epochs: of each.
    """
    Console().print(run(Study(seeds=seeds, epochs=epochs), output).to_string())


if __name__ == "__main__":
    tyro.cli(main)
