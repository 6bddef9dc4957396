"""Portraits of Hebbian rules: what the units of the first block look at, how often each wins, and how many never do.

Every rule learns MNIST by its own contender of the comparison; SoftHebb learns CIFAR-10 by convolutions too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from altprop import nets, tasks
from altprop.bench.compare import shaped
from altprop.bench.competitive_family import soft_hebb_conv
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import markdown, write_page
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.report import winners
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.rules.hebbian.competition import Competitive
from altprop.tasks import Task

FOLDER, FILE = "hebbian_portraits", "hebbian_portraits.md"
CONV = "soft-hebb, convolutions"


@dataclass(frozen=True)
class Study:
    """Which rules, on which data, and how many units are shown; small ones for tests."""

    task: str = "mnist"
    width: int = 256
    images: str = "cifar10"
    epochs: int = 2
    seed: int = 0
    units: int = 60
    rules: tuple[str, ...] = ("hebbian-pca", "hebbian-ica", "competitive", "krotov-hopfield", "bcm", "soft-hebb")

    def subjects(self) -> Iterator[tuple[str, Task, Contender, Setting]]:
        """Each rule's name on the page, its data, its contender and where it is compared."""
        for rule in self.rules:
            data, setting = self._on(self.task, "mlp")
            chosen = contender(rule, setting)
            if rule == "hebbian-pca":  # a subspace has no units of its own; in Sanger's rule each has a component
                chosen = replace(chosen, widths=(self.units,), options={**chosen.options, "update": "sanger"})
            yield rule, data, chosen, setting
        data, setting = self._on(self.images, "soft-hebb")
        yield CONV, data, soft_hebb_conv(setting), setting

    def _on(self, task: str, net: str) -> tuple[Task, Setting]:
        data = shaped(tasks.load(task), net)
        return data, Setting(task, data.problem, net, self.width, 2)


def fields(rule: Rule, data: Task, units: int) -> Float[Tensor, "units channels height width"]:
    """What so many units of the first layer look at: those that win most often, or the first ones."""
    i, layer = next((i, nets.affine(block)) for i, block in enumerate(rule.net) if nets.affine(block) is not None)
    assert layer is not None
    weights = layer.get_parameter("weight").detach()
    chosen = torch.arange(len(weights))
    if isinstance(rule, Competitive):
        chosen = rule.wins(i).argsort(descending=True)
    weights = weights[chosen[:units]]
    return weights if weights.dim() == 4 else weights.view(-1, *data.image)


def measure(study: Study, folder: Path) -> Iterator[dict[str, object]]:
    """Train each rule, draw what its units look at, and give one row a rule and block; at the end draw who wins."""
    shares: dict[str, Tensor] = {}
    for name, data, chosen, setting in study.subjects():
        with Process().applied(study.seed), torch.no_grad():
            rule = trained(chosen, setting, data, study.epochs, study.seed)
            test = accuracy(rule, data.test, None, torch.device("cpu"))
        wins = {i: rule.wins(i) for i in rule.layers} if isinstance(rule, Competitive) else {}
        shown = fields(rule, data, study.units)
        which = f"the {len(shown)} units that win most" if wins else f"{len(shown)} units"
        winners.draw_fields(shown, f"{name}: {which}", folder, file_of(name))
        about = {"rule": name, "task": data.name, "test": test}
        if not wins:
            yield {**about, "block": "", "units": "", "dead": ""}
        for i, won in wins.items():
            shares[name if len(wins) == 1 else f"{name}, block {i}"] = won
            yield {**about, "block": i, "units": len(won), "dead": int((won == 0).sum())}
    winners.draw_winners(shares, folder)


def file_of(name: str) -> str:
    """The figure of a rule's fields, without its ending."""
    return "fields-" + name.replace(", ", "-")


def page(table: pd.DataFrame, study: Study) -> str:
    """The portraits in Markdown."""
    columns = ["rule", "task", "test", "block", "units", "dead"]
    shown = table.assign(test=[f"{100 * value:.2f} %" for value in table["test"]])[columns].astype(str)
    pictures = "\n\n".join(
        f"![what units of {name} look at]({FOLDER}/{file_of(name)}.png)" for name in dict.fromkeys(table["rule"])
    )
    return f"""# Portraits of Hebbian rules

Made by `python -m altprop.bench.hebbian_portraits` (this page too). Each rule by its contender of the comparison
(Hebbian PCA: {study.units} units in one block, by Sanger's rule, so that each has a component), {study.epochs} epochs,
seed {study.seed}; test accuracy of its readout at the end, as a hint at what its units are worth (the [family's
page](hebbian_family.md) compares, with seeds and controls). Dead: units that never won a patch in the whole of
training.

{markdown(["rule", "data", *columns[2:]], shown.to_numpy().tolist())}

## Who wins

Of all patches in training. Dashed: an equal share; shaded: units that never won.

![wins of each unit]({FOLDER}/winners.png)

## Receptive fields

Weights from the image to units of the first block, each by its own largest weight: red above zero and blue below; for
colour images in colour, grey at zero. Of rules that compete, the units that win most often.

{pictures}
"""


def run(study: Study, output: Path) -> None:
    """Train, draw, and write the page with its rows."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(measure(study, folder))
    with replaced(folder / "rows.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    write_page(output / FILE, page(table, study))


def main(output: Path = Path("docs/results")) -> None:
    """Draw the portraits of Hebbian rules, and write their page.

    Args:
        output: the folder for what is published.
    """
    run(Study(), output)
    Console().print(f"written: {output / FILE}")


if __name__ == "__main__":
    tyro.cli(main)
