"""`python -m altprop.bench.generation`: a forward-forward net draws, and a classifier that it never met judges.

Each seed trains a generator; one judge, a small convolutional net, is trained by backprop on the same real images.
Beside the drawings stand real test images, and controls: the generator without one of its steps; with blocks left at
random, and without its own drawings among the negatives (first seed only); and drawings from the Gaussian of each
class's pixels, for which no net is needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import pandas as pd
import torch
import tyro
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from altprop import tasks
from altprop.analysis import drawings as measures
from altprop.bench import protocol
from altprop.bench.contender import Contender, Setting, adam, sgd
from altprop.bench.contenders import contender
from altprop.bench.publish import markdown, write_page
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.report.figures import LOOK, save
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.rules.forward_only.generative_forward_forward import GenerativeForwardForward
from altprop.tasks import Task

JUDGE = Contender("backprop", (32, 64), net="conv", optimizer={"all": adam(3e-3)}, schedule="cosine", batch_size=100)
FULL, REAL = "as it is", "real test images"
SHOWN = 10


@dataclass(frozen=True)
class Study:
    """What is trained and drawn; a small one for tests. each: drawings a class."""

    task: str = "mnist"
    width: int = protocol.DEFAULT_WIDTH
    epochs: int = 12
    judge_epochs: int = 5
    seeds: int = 3
    each: int = 200
    process: Process = field(default_factory=lambda: Process(precision="medium"))

    @property
    def data(self) -> Task:
        return tasks.load(self.task)

    @property
    def setting(self) -> Setting:
        return Setting(self.data.name, self.data.flat().problem, "mlp", self.width, protocol.DEFAULT_DEPTH)

    def judge(self) -> Rule:
        setting = replace(self.setting, problem=self.data.problem, net="conv")
        return self.trained(JUDGE, setting, self.data, self.judge_epochs, seed=0)

    def generator(self, seed: int, chosen: Contender | None = None) -> tuple[GenerativeForwardForward, float]:
        """A trained generator, and the seconds that it took."""
        start = perf_counter()
        chosen = chosen or contender("generative-forward-forward", self.setting)
        rule = self.trained(chosen, self.setting, self.data.flat(), self.epochs, seed)
        assert isinstance(rule, GenerativeForwardForward)
        return rule, perf_counter() - start

    def trained(self, chosen: Contender, setting: Setting, data: Task, epochs: int, seed: int) -> Rule:
        with self.process.applied(seed):
            return trained(chosen, setting, data, epochs, seed)

    @property
    def labels(self) -> Int[Tensor, " drawings"]:
        return torch.arange(self.data.classes).repeat_interleave(self.each)

    def controls(self) -> dict[str, Contender]:
        base = contender("generative-forward-forward", self.setting)
        still = {**base.optimizer, "blocks": sgd(0.0)}
        return {
            "none of its drawings among the negatives": replace(base, options={**base.options, "dreams": 0.0}),
            "blocks left at random": replace(base, optimizer=still),
        }


class Judge:
    """The classifier that judges, and the real images beside which drawings are measured."""

    def __init__(self, study: Study) -> None:
        self.rule, self.shape = study.judge(), study.data.shape
        data = study.data.flat()
        self.train, self.test = data.train.batch(slice(None)), data.test.batch(slice(None))
        self.half = len(self.test[1]) // 2

    @torch.no_grad()
    def measure(self, x: Float[Tensor, "drawings ..."], labels: Int[Tensor, " drawings"]) -> dict[str, float]:
        """A row of the table: recognised, the lowest class's share, spread, and the two distances."""
        shares = measures.recognised(self.scores(x), labels)
        return {
            "recognised": float(shares.mean()),
            "lowest": float(shares.min()),
            "lowest_class": int(shares.argmin()),
            "spread": measures.spread(x, labels, *self.test),
            "nearest": measures.nearest(x, self.train[0]),
            "frechet": measures.frechet(self.features(x), self.features(self.test[0][self.half :])),
        }

    def scores(self, x: Tensor) -> Float[Tensor, "drawings classes"]:
        return torch.cat([self.rule(part.view(-1, *self.shape)) for part in x.split(1000)])

    def features(self, x: Tensor) -> Float[Tensor, "drawings channels"]:
        """The mean activity of each of the last hidden block's channels."""
        blocks = list(self.rule.net)[:-1]
        found = []
        for part in x.split(1000):
            h = part.view(-1, *self.shape)
            for block in blocks:
                h = block(h)
            found.append(h.view(len(h), JUDGE.widths[-1], -1).mean(2))
        return torch.cat(found)


def random(seed: int) -> torch.Generator:
    """Where the drawings of a seed come from, apart from all that its training draws."""
    return torch.Generator().manual_seed(protocol.seed_of("drawing", seed))


def rows(study: Study, judge: Judge) -> Iterator[tuple[dict[str, object], Tensor]]:
    """Each row of the table with the drawings that it is about, as they come."""
    labels, test = study.labels, judge.test
    yield {"what": REAL, "seed": "", **judge.measure(test[0][: judge.half], test[1][: judge.half])}, test[0]
    for seed in range(study.seeds):
        rule, seconds = study.generator(seed)
        score = float((rule.energy(test[0]).argmax(1) == test[1]).double().mean())
        ways = {FULL: {}, "one candidate each": {"candidates": 1}, "straight down": {"candidates": 1, "rounds": 0}}
        for what, options in ways.items():
            x = rule.draw(labels, random(seed), **options)
            yield {"what": what, "seed": seed, "accuracy": score, "seconds": seconds, **judge.measure(x, labels)}, x
    for what, chosen in study.controls().items():
        x = study.generator(0, chosen)[0].draw(labels, random(0))
        yield {"what": what, "seed": 0, **judge.measure(x, labels)}, x
    x = measures.class_gaussians(*judge.train, labels, random(0))
    yield {"what": "Gaussian of each class's pixels", "seed": 0, **judge.measure(x, labels)}, x


def page(table: pd.DataFrame, study: Study, accuracy: float) -> str:
    """The section in Markdown."""
    head = ["drawings", "seed", "recognised", "lowest class", "spread", "nearest training image", "Fréchet distance"]
    lines = [
        [
            row["what"], str(row["seed"]), f"{100 * row['recognised']:.1f} %",
            f"{100 * row['lowest']:.1f} % ({row['lowest_class']})", f"{row['spread']:.2f}", f"{row['nearest']:.2f}",
            f"{row['frechet']:.3f}",
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    own = table[table["what"] == FULL]
    reached = own["recognised"].min() >= 0.8 and own["lowest"].min() > 0 and own["spread"].min() >= 0.5
    return f"""# Drawings by a forward-forward net

Command: `python -m altprop.bench.generation`. Task {study.task}; {study.epochs} epochs, {study.each} drawings a class.
The judge, trained apart by backprop, recognises {100 * accuracy:.2f} % of the real test images. Goals: on every seed at
least 80 % recognised, every class drawn, spread at least 0.5: {"reached" if reached else "**not reached**"}.
Published: no number; Hinton 2022 (section 6.2) proposes it without an experiment.
Accuracy of the discriminator by energy on test: {worded(own["accuracy"], 100.0)} %; seconds of training:
{worded(own["seconds"], 1.0)}.

{markdown(head, lines)}

Recognised: the share that the judge takes for the class asked for. Spread: mean distance between two drawings of a
class, over that of real images. Nearest training image: mean Euclidean distance; drawings that are copies would be at
0, and real test images stand in the first row. Fréchet distance: in the judge's last channels, to the second half of
the test images (the first row: its first half). The rows without a net's step and the control of pixels show what each
step is for; the best drawings have many recognised, much spread *and* a small Fréchet distance.

![drawings](forward-forward-generation/generated.png)
"""


def worded(values: Iterable[float], scale: float) -> str:
    return ", ".join(f"{scale * value:.{2 if scale > 1 else 0}f}" for value in values)


def draw_grid(
    drawn: Float[Tensor, "drawings inputs"], real: list[Tensor], shape: tuple[int, ...], names: tuple[str, ...]
) -> Figure:
    """Rows: classes. Columns: the first drawings of each, then real images."""
    height, width = shape[-2:]
    each = len(drawn) // len(names)
    with mpl.rc_context({**LOOK, "axes.grid": False}):
        figure = Figure(figsize=(9.6, 0.62 * len(names) + 0.5), layout="constrained")
        axes = figure.subplots(len(names), 2, width_ratios=[2, 1], squeeze=False)
        for c, name in enumerate(names):
            for side, images in enumerate((drawn[c * each :][:SHOWN], real[c][: SHOWN // 2])):
                strip = images.view(len(images), -1, height, width).mean(1).permute(1, 0, 2).reshape(height, -1)
                axes[c, side].imshow(strip.numpy(), cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
                axes[c, side].set(xticks=[], yticks=[])
                axes[c, side].spines[:].set_visible(False)
            axes[c, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        axes[0, 0].set_title("drawn for the class asked for")
        axes[0, 1].set_title("real test images")
    return figure


def run(study: Study, output: Path) -> pd.DataFrame:
    """Train, draw, measure, and write the page, and its rows and figure into a folder beside it."""
    folder = output / "forward-forward-generation"
    judge = Judge(study)
    found: list[dict[str, object]] = []
    for row, x in rows(study, judge):
        found.append(row)
        if row["what"] == FULL and row["seed"] == 0:
            real = [judge.test[0][judge.test[1] == c] for c in range(study.data.classes)]
            save(draw_grid(x, real, judge.shape, study.data.names), folder, "generated", ("png", "svg"))
    table = pd.DataFrame(found)
    with torch.no_grad():
        accuracy = float((judge.scores(judge.test[0]).argmax(1) == judge.test[1]).double().mean())
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / "rows.csv") as path:
        table.assign(judge=accuracy).to_csv(path, index=False, float_format="%.6g")
    write_page(output / "forward_forward_generation.md", page(table, study, accuracy))
    return table


def main(output: Path = Path("docs/results"), seeds: int = 3, epochs: int = 12) -> None:
    """Train generators and the judge, and write what the drawings are worth.

    Args:
        output: the folder for what is published.
        seeds: how many generators.
        epochs: of each generator.
    """
    Console().print(run(Study(seeds=seeds, epochs=epochs), output).to_string())


if __name__ == "__main__":
    tyro.cli(main)
