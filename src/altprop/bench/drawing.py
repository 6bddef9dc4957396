"""Drawings by an energy: bidirectional predictive coding draws a digit of each class, and completes covered images.

The contender of the comparison, tuned to classify, beside the same rule with a larger weight of what is predicted from
above. The latter completes images, with the weights of `COMPLETING`, for what is predicted from above has to move
pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from altprop import tasks
from altprop.bench.contender import Contender, Setting, adam
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import markdown, write_page
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.report.figures import LOOK, save
from altprop.report.replace import replaced
from altprop.rules.energy.bidirectional_predictive_coding import BidirectionalPredictiveCoding
from altprop.tasks import Task

PROCESS = Process(precision="medium")
COMPLETING = {"alpha_up": 1.0, "alpha_down": 1.0, "rate": 0.1}
NAMES = ("classifier", "draughtsman")


@dataclass(frozen=True)
class Study:
    """Which nets are trained, and how images are completed; small ones for tests."""

    task: str = "mnist"
    width: int = 256
    epochs: int = 1
    seed: int = 0
    samples: int = 1000
    sweeps: int = 300

    def contenders(self, setting: Setting) -> dict[str, Contender]:
        """The one that classifies best, and the one that draws."""
        best = contender("bidirectional-predictive-coding", setting)
        options = {"alpha_down": 0.1, "rate": 0.1, "sweeps": 8}
        draws = replace(best, act="tanh", options=options, optimizer={"all": adam(1e-3, eps=1e-10)})
        return dict(zip(NAMES, (best, draws), strict=True))


def nets(study: Study, data: Task) -> Iterator[tuple[dict[str, object], BidirectionalPredictiveCoding]]:
    """Of each contender a row for the table, and the trained rule."""
    setting = Setting(study.task, data.problem, "mlp", study.width, 2)
    for name, chosen in study.contenders(setting).items():
        rule = trained(chosen, setting, data, study.epochs, study.seed)
        assert isinstance(rule, BidirectionalPredictiveCoding)
        with torch.no_grad():
            right = accuracy(rule, data.test, None, torch.device("cpu"))
        yield {"net": name, **chosen.options, "act": chosen.act, "epochs": study.epochs, "accuracy": right}, rule


def upper_half(data: Task) -> Tensor:
    """Which values of an image are not covered."""
    known = torch.zeros(data.image, dtype=torch.bool)
    known[:, : data.image[1] // 2] = True
    return known.flatten()


def squared_error(completed: Tensor, x: Tensor, covered: Tensor) -> float:
    """Mean over covered pixels and images."""
    return float((completed - x)[:, covered].square().mean())


def run(study: Study, output: Path) -> pd.DataFrame:
    """Train the nets, draw with them, and write the figure and the table."""
    data, folder = tasks.load(study.task).flat(), output / "energy-drawings"
    folder.mkdir(parents=True, exist_ok=True)
    x, _ = data.test.batch(slice(0, study.samples))
    known, shown, labels = upper_half(data), x[: data.classes], torch.arange(data.classes)
    table: list[dict[str, object]] = []
    rows: dict[str, Tensor] = {}
    with PROCESS.applied(study.seed):
        for row, rule in nets(study, data):
            table.append(row)
            rows[f"drawn by the {row['net']}"] = rule.draw(labels)
        vars(rule).update(COMPLETING)
        completed = rule.complete(x, known, study.sweeps)
    table[-1]["squared_error"] = squared_error(completed, x, ~known)
    mean = data.train.batch(slice(0, 5000))[0].mean(0).expand_as(x)
    table.append({"net": "mean image", "squared_error": squared_error(mean, x, ~known)})
    rows |= {"what is seen": shown * known, "completed": completed[: data.classes], "test images": shown}
    draw_rows(rows, data.image, folder)
    found = pd.DataFrame(table)
    with replaced(folder / "rows.csv") as path:
        found.to_csv(path, index=False, float_format="%.5g")
    write_page(output / "energy_drawings.md", page(found, study))
    return found


def page(table: pd.DataFrame, study: Study) -> str:
    """The study in Markdown."""
    lines = []
    for row in table.to_dict("records"):
        right, error = row["accuracy"], row["squared_error"]
        weight = "" if pd.isna(row["alpha_down"]) else f"{row['alpha_down']:g}"
        lines.append([str(row["net"]), weight, "" if pd.isna(right) else f"{100 * right:.1f} %",
                      "" if pd.isna(error) else f"{error:.3f}"])  # fmt: skip
    return f"""# Drawings by an energy

Made by `python -m altprop.bench.drawing` (this page too). {study.task}, bidirectional predictive coding on two hidden
blocks of {study.width} units, {study.epochs} epoch(s), seed {study.seed}. One net is tuned to classify, the other gives
what is predicted from above a larger weight (`alpha_down`), and draws: a digit for each label, from the top down. Then
the upper half of a test image is clamped, and all else relaxes for {study.sweeps} sweeps. The error is that of the
covered pixels, squared, mean over {study.samples:,} test images; the mean training image stands for knowing nothing.

{markdown(["net", "alpha_down", "test accuracy", "error of the covered half"], lines)}

![digits drawn for each class, and covered images completed](energy-drawings/drawings.png)
"""


def draw_rows(rows: Mapping[str, Tensor], shape: tuple[int, ...], folder: Path) -> list[Path]:
    """`drawings.png` and `.svg`: a row of images for each name, the mean of channels in grey from 0 to 1."""
    columns = max(len(row) for row in rows.values())
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(2.0 + 0.62 * columns, 0.5 + 0.66 * len(rows)), layout="constrained")
        figure.suptitle("One energy draws from labels, and completes", x=0.01, ha="left", weight="bold", fontsize=11)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (name, row) in zip(grid, rows.items(), strict=True):
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
            for axes, image in zip(line, row, strict=True):
                axes.imshow(image.view(shape).mean(0).numpy(), cmap="Greys", vmin=0.0, vmax=1.0)
                axes.set(xticks=[], yticks=[])
                axes.grid(visible=False)
        return save(figure, folder, "drawings", ("png", "svg"))


def main(output: Path = Path("docs/results")) -> None:
    """Train, draw, and write the figure and its table.

    Args:
        output: the folder for what is published.
    """
    print(run(Study(), output).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
