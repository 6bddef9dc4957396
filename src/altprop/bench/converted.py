"""A residual net in a user's own loop, by backpropagation and by the feedback rules of `altprop.convert`.

The net (after He et al. 2016, arXiv 1512.03385) and its loop know nothing of altprop: one line converts it. All have
the same batches, in the same order, the same kind of optimizer and the same number of steps; rates and weight decay are
each one's own.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn

from altprop import tasks
from altprop.analysis.angles import angles
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import markdown, write_page
from altprop.bench.stats import interval
from altprop.bench.teaching import batches
from altprop.bench.train import Process
from altprop.conversion import convert
from altprop.report.replace import replaced
from altprop.tasks import Task

PROCESS = Process()
BATCH = 64
WITHIN = 3.0
"""How many points behind backpropagation uSF may be."""


@dataclass(frozen=True)
class Setting:
    """The rate of gradient descent with momentum 0.9, which falls to 0 in a line, and the weight decay."""

    rate: float = 0.05
    decay: float = 5e-4


@dataclass(frozen=True)
class Study:
    """The same net, by each rule; a small one for tests."""

    task: str = "cifar10"
    channels: tuple[int, ...] = (16, 32, 64)
    epochs: int = 2
    seeds: int = 3
    samples: int | None = None
    rules: dict[str, Setting] = field(
        default_factory=lambda: {
            "backprop": Setting(),
            "usf": Setting(),
            "kolen-pollack": Setting(decay=5e-3),
            "feedback-alignment": Setting(),
        }
    )

    def data(self) -> Task:
        return tasks.load(self.task).images()


class Residual(nn.Module):
    """Two convolutions with batch normalisation, added to what they take (through a 1x1 one where shapes change)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        h = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
        return torch.relu(h + self.around(x))


def resnet(inputs: int, channels: tuple[int, ...], classes: int) -> nn.Sequential:
    """A stem, one residual part a stage (every stage but the first halves the image), and a linear layer."""
    stem = [nn.Conv2d(inputs, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
    before = (channels[0], *channels)
    stages = [Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(before, channels, strict=False))]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


def train(model: nn.Module, setting: Setting, study: Study, data: Task, seed: int) -> float:
    """A plain training loop; returns its seconds."""
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.rate, momentum=0.9, weight_decay=setting.decay)
    total, done, start = study.samples or study.epochs * len(data.train), 0, time.perf_counter()
    for x, y in batches(data, BATCH, study.epochs, seed):
        if done >= total:
            break
        optimizer.param_groups[0]["lr"] = setting.rate * (1.0 - done / total)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        done += len(y)
    return time.perf_counter() - start


def measure(study: Study, console: Console) -> Iterator[dict[str, object]]:
    """One row a rule and seed."""
    data = study.data()
    for seed in range(study.seeds):
        for rule, setting in study.rules.items():
            with PROCESS.applied(seed):
                model = resnet(data.shape[0], study.channels, data.classes)
                if rule != "backprop":
                    convert(model, rule, generator=torch.Generator().manual_seed(seed))
                model.train()
                seconds = train(model, setting, study, data, seed)
                model.eval()
                with torch.no_grad():
                    found = {
                        s: accuracy(model, getattr(data, s), None, torch.device("cpu")) for s in ("validation", "test")
                    }
            degrees = list(angles(model).values())[1:]  # no error goes down through the first layer
            row = {"rule": rule, "seed": seed, "rate": setting.rate, "decay": setting.decay, **found,
                   "angle": sum(degrees) / len(degrees) if degrees else 0.0, "seconds": seconds}  # fmt: skip
            console.print(row)
            yield row


def page(table: pd.DataFrame, study: Study) -> str:
    """The study in Markdown."""
    test = 100 * table.groupby("rule")["test"].mean()
    lines = []
    for rule, group in table.groupby("rule", sort=False):
        each = 100 * group["test"]
        mean, low, high = interval(each)
        cells = [str(rule), f"{group['rate'].iloc[0]:g}", f"{group['decay'].iloc[0]:g}", f"{mean:.2f} %"]
        cells += [f"{low:.2f} to {high:.2f}" if len(each) > 1 else "", ", ".join(f"{value:.2f}" for value in each)]
        cells += [f"{test['backprop'] - mean:.2f}", f"{group['angle'].mean():.0f}"]
        lines.append([*cells, f"{group['seconds'].median() / 60:.1f}"])
    behind = test["backprop"] - test["usf"]
    verdict = "yes" if behind <= WITHIN else "**no**"
    stages = "-".join(map(str, study.channels))
    length = f"{study.samples:,} samples" if study.samples else f"{study.epochs} epoch(s)"
    head = ["rule", "rate", "weight decay", "test", "interval", "each seed", "behind", "angle", "minutes"]
    return f"""# A converted residual net

Made by `python -m altprop.bench.converted` (this page too). {study.task}, a residual net of stages of {stages} channels
with batch normalisation, {length} in batches of {BATCH}, {table["seed"].nunique()} seed(s), no augmentation, gradient
descent with momentum 0.9 and a rate that falls to 0; one thread. The net and its training loop are a plain PyTorch
user's; `altprop.convert(model, rule)` is the one line that was added. All have backpropagation's rate; Kolen-Pollack's
weight decay is larger, for it is what brings feedback and weights together. Test accuracy at the end, with the Student
t 95 % interval; how many points it is behind backpropagation; and the angle in degrees between the feedback and the
forward weights at the end, mean of all layers but the first.

{markdown(head, lines)}

uSF is {behind:.2f} points behind backpropagation (goal: at most {WITHIN:g}): {verdict}.
"""


def run(study: Study, output: Path) -> pd.DataFrame:
    """Measure, and write the page with its rows."""
    table = pd.DataFrame(measure(study, Console()))
    folder = output / "converted"
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "rows.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    write_page(output / "converted.md", page(table, study))
    return table


def main(output: Path = Path("docs/results"), seeds: int = 3, epochs: int = 2) -> None:
    """Train a residual net by backpropagation and by converted rules, and write how they compare.

    Args:
        output: the folder for what is published.
        seeds: how many nets of each kind.
        epochs: of each.
    """
    Console().print(run(Study(seeds=seeds, epochs=epochs), output).to_string())


if __name__ == "__main__":
    tyro.cli(main)
