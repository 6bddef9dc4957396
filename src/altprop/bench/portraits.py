"""Portraits of a forward-forward net: train one for some epochs, and draw what its blocks do.

The figures are the functions of `report/portraits.py`; the net is the contender of the comparison on the common net.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor

from altprop import tasks
from altprop.analysis.beliefs import images_by_goodness
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import write_page
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.report import portraits
from altprop.report.replace import replaced
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.rules.forward_only.negatives import blur, hard_negatives
from altprop.tasks import Task

PROCESS = Process(precision="medium")
BLURS, VARIES = 4, 0.1
"""How often a gradient by an image is blurred; the least standard deviation of a pixel that varies."""


@dataclass(frozen=True)
class Study:
    """Which net is trained, and what of it is shown; small ones for tests."""

    task: str = "mnist"
    width: int = 500
    epochs: int = 12
    seed: int = 0
    samples: int = 5000
    units: int = 60
    image: int = 0

    def trained(self, data: Task, epochs: int) -> ForwardForward:
        """The net after so many epochs."""
        setting = Setting(self.task, data.problem, "mlp", self.width, 2)
        chosen = contender("forward-forward", setting)
        rule = trained(chosen, setting, data, epochs, self.seed)
        assert isinstance(rule, ForwardForward)
        return rule


@torch.no_grad()
def goodness(rule: ForwardForward, x: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """Each block's goodness with these labels, by its place; of several sites the sum."""
    return {i: rule.goodness[i](h).sum(1) for i, h in rule.activities(x, labels).items()}


@torch.no_grad()
def draw_activities(rule: ForwardForward, data: Task, study: Study, folder: Path) -> None:
    """One test image with its label, and with the wrong one that the head finds most likely."""
    x, y = data.test.batch(slice(study.image, study.image + 1))
    wrong = rule(x).scatter(1, y.unsqueeze(1), -torch.inf).argmax(1)
    labels = torch.cat([y, wrong])
    twice = x.repeat(2, 1)
    h = {i: a.flatten(1) for i, a in rule.activities(twice, labels).items()}
    names = (data.names[int(y)], data.names[int(wrong)])
    image = x[0].view(data.image)
    portraits.draw_activities(image, names, h, goodness(rule, twice, labels), rule.thresholds, folder)


def draw_goodness(rule: ForwardForward, data: Task, study: Study, folder: Path) -> pd.DataFrame:
    """Test images with their labels, and with wrong ones drawn as in training; returns the percentiles of goodness."""
    x, y = data.test.batch(slice(0, study.samples))
    with torch.no_grad():
        wrong = hard_negatives(rule(x), y, torch.Generator().manual_seed(study.seed))
    positives, negatives = goodness(rule, x, y), goodness(rule, x, wrong)
    portraits.draw_goodness(positives, negatives, rule.thresholds, folder)
    kinds = (("right", positives), ("wrong", negatives))
    share = torch.linspace(0, 1, 101)
    frames = [
        pd.DataFrame(
            {"percentile": range(101), "goodness": found[i].quantile(share), "threshold": rule.thresholds[i]}
        ).assign(block=number, label=kind)
        for kind, found in kinds
        for number, i in enumerate(found, 1)
    ]
    return pd.concat(frames, ignore_index=True)[["block", "label", "percentile", "goodness", "threshold"]]


def draw_fields(rule: ForwardForward, data: Task, study: Study, folder: Path) -> None:
    """The weights of those units of the first block that have moved furthest from where they began, in proportion."""
    weights, start = (looks(net, data) for net in (rule, study.trained(data, 0)))
    moved = (weights - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)
    units = moved.topk(min(study.units, len(weights))).indices
    words = f"What units of the first block look at: the {len(units)} that learned most"
    portraits.draw_fields(weights[units], words, folder)


def looks(rule: ForwardForward, data: Task) -> Tensor:
    """The first block's weights (units, height, width) from the image without the label's entries, which are 0."""
    weights = next(rule.net[rule.first].parameters()).detach().clone()
    weights[:, : data.classes] = 0.0
    return weights.view(-1, *data.image).mean(1)


def draw_beliefs(rule: ForwardForward, data: Task, study: Study, folder: Path) -> None:
    """The image of each class that goodness leads to from the mean image, where pixels vary from image to image."""
    x, _ = data.train.batch(slice(0, study.samples))
    varies = (x.std(0) > VARIES).to(x.dtype)
    varies[: data.classes] = 0.0  # the label stands there

    def smooth(slope: Tensor) -> Tensor:
        return blur(slope.view(-1, *data.image), BLURS).view_as(slope) * varies

    images = images_by_goodness(rule, start=x.mean(0), smooth=smooth)
    portraits.draw_images(list(images.view(-1, *data.image)), data.names, folder)


PAGE = """# Portraits of a forward-forward net

Made by `python -m altprop.bench.portraits` (this page too): forward-forward, {task}, {blocks} blocks of {width} units,
{epochs} epochs, seed {seed}, float32 products at precision "medium". Test accuracy: {accuracies}.

## Activities

Each block's {width} units as a square, on the same image with the right label and with the wrong label that the head
finds most likely. The label stands in the first pixels; a block is to be active for the right one and quiet for the
wrong one. Beside each square, its goodness and the threshold.

![activities](forward-forward-portraits/activities.png)

## Goodness

Of {samples:,} test images, with the right label and with wrong ones that the head finds likely (as in training). The
percentiles are in [goodness.csv](forward-forward-portraits/goodness.csv).

![goodness](forward-forward-portraits/goodness.png)

## Receptive fields

Weights from the image to units of the first block, red above zero and blue below, for the units whose weights have
moved furthest from where they began. At the edge of the image, where pixels are always empty, the first random weights
remain. The label's weights are left out.

![receptive fields](forward-forward-portraits/fields.png)

## What the net believes

From the mean of the first {samples:,} training images, each one follows its class's lead in energy by gradient,
through all blocks: a picture for analysis only, no forward-only rule learns so. The gradient is blurred {blurs} times
before each step, and moves only pixels that vary from image to image; without that, each pixel goes its own way, and no
eye sees a digit. How a net draws without any gradient is on the page of
[the rule that draws](../rules/generative_forward_forward.md).

![beliefs](forward-forward-portraits/beliefs.png)
"""


def run(study: Study, output: Path) -> None:
    """Train the net, draw it, and write the page."""
    data, folder = tasks.load(study.task).flat(), output / "forward-forward-portraits"
    folder.mkdir(parents=True, exist_ok=True)
    with PROCESS.applied(study.seed):
        rule = study.trained(data, study.epochs)
        with torch.no_grad():
            found = {n: accuracy(p, data.test, None, torch.device("cpu")) for n, p in rule.predictors().items()}
        draw_activities(rule, data, study, folder)
        table = draw_goodness(rule, data, study, folder)
        draw_fields(rule, data, study, folder)
        draw_beliefs(rule, data, study, folder)
    with replaced(folder / "goodness.csv") as path:
        table.to_csv(path, index=False, float_format="%.5g")
    accuracies = ", ".join(f"{100 * value:.2f} % by {name}" for name, value in found.items())
    samples, blocks = min(study.samples, len(data.test)), len(rule.learners)
    page = PAGE.format(
        **{**vars(study), "samples": samples, "blocks": blocks, "accuracies": accuracies, "blurs": BLURS}
    )
    write_page(output / "forward_forward_portraits.md", page)


def main(output: Path = Path("docs/results")) -> None:
    """Draw the portraits and write their page.

    Args:
        output: the folder for what is published.
    """
    run(Study(), output)


if __name__ == "__main__":
    tyro.cli(main)
