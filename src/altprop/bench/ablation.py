"""`make ablation`: forward-forward on 784-512-512 with one thing changed at a time, and what of the claims holds.

Each row is the base with one change, trained for as long with the same seeds. A rate that suits the base may not suit
a row, so each row (the base too) first chooses its own: two epochs with one seed at each of several multiples of the
base's, the best mean validation accuracy of head and energy wins. Rows and multiples are ordinary runs in the store;
run again, or in several processes, it goes on where it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.console import Console

from altprop import tasks
from altprop.bench.compare import Observer, carry_out, measured, plan
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.protocol import Budget
from altprop.bench.publish import markdown, write_page, write_rows
from altprop.bench.rates import best_multiples, scaled
from altprop.bench.stats import final, interval_of_all
from altprop.bench.train import Plan, Process
from altprop.report import ablations
from altprop.tasks import Task
from altprop.terminal import Bars

WIDTH, DEPTH, EPOCHS, SEEDS, PROBE_EPOCHS = 512, 2, 6, 3, 2
MULTIPLES = (0.1, 0.3, 1.0, 3.0, 10.0)
PROCESS = Process(precision="medium")
PREDICTORS = ("energy", "head")
HOLDS, OPPOSITE, NOTHING, DIVERGED = "holds", "the opposite", "no difference shown", "diverged"


@dataclass(frozen=True)
class Change:
    """One thing that differs from the base.

    fields, options: of the contender and of the rule; a label beside the input makes room for itself. scale: by how
    much smaller the change makes the gradient; the rate is multiplied by it, and peer normalisation divided. binary: on
    pixels of 0 and 1. claim: what is said of it, with the source; sign: whether that is more (+1) or less (-1) accuracy
    than the base's, or not said (0).
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    binary: bool = False
    claim: str = ""
    sign: int = 0


def goodness(name: str, claim: str = "", sign: int = 0, scale: float = 1.0) -> Change:
    """Another goodness; the words of its name are its row's."""
    return Change(name.replace("-", " "), options={"goodness": name}, scale=scale, claim=claim, sign=sign)


BASE = Change("base")
CHANGES = (
    goodness("negative-sum-of-squares", "quiet positives are better (Hinton 2022, on cifar10)", +1),
    goodness("mean-of-squares", scale=512.0),
    goodness("negative-mean-of-squares", scale=512.0),
    goodness("sum-of-absolutes"),
    goodness("negative-sum-of-absolutes"),
    goodness("sparse", "only the largest activities: far better (arXiv 2604.13081, on Fashion-MNIST)", +1),
    goodness("negative-sparse"),
    goodness("channel-groups"),
    goodness("negative-channel-groups"),
    Change("leaky ReLU", {"act": "leaky-relu"}),
    Change("GELU", {"act": "gelu"}),
    Change("tanh", {"act": "tanh"}),
    Change("binary pixels", binary=True),
    Change(
        "no normalisation",
        # Lengths as they are: with this start, goodness in the blocks is 15 to 30, and not a quarter of a thousand.
        options={"normalise": False, "threshold": 0.05},
        scale=10.0,
        claim="without it a block can go by the length of its input alone, and does worse (Hinton 2022)",
        sign=-1,
    ),
    Change(
        "all blocks are read",
        options={"skip_first": False},
        claim="leaving the first block out is better (Hinton 2022)",
        sign=-1,
    ),
    Change("one block after another", options={"together": False}),
    Change("label concatenated", options={"placement": "concatenate"}),
    Change(
        "label as a channel",
        options={"placement": "channel"},
        claim="a pattern of its own a class is better than a few pixels (Lee & Song 2023)",
        sign=+1,
    ),
    Change(
        "uniform negatives",
        options={"negatives": "uniform"},
        claim="hard negatives are better (Hinton 2022)",
        sign=-1,
    ),
)


@dataclass(frozen=True)
class Study:
    """The rows on one task; small ones for tests."""

    task: str = "mnist"
    width: int = WIDTH
    epochs: int = EPOCHS
    seeds: int = SEEDS
    changes: tuple[Change, ...] = CHANGES
    multiples: tuple[float, ...] = MULTIPLES

    def contender(self, change: Change, multiple: float, variant: str) -> Contender:
        """The base with the change; its blocks learn at a multiple of their rate, and decay as much a step."""
        data = tasks.load(self.task).flat()
        base = contender("forward-forward", self.setting(data))
        peer = base.options.get("peer", 0.0) / change.scale
        room = {"concatenate": data.classes, "channel": data.shape[0]}
        return replace(
            base,
            variant=variant,
            widths=(self.width,) * DEPTH,
            label_inputs=room.get(change.options.get("placement", ""), 0),
            options={**base.options, "peer": peer, **change.options},
            optimizer={**base.optimizer, "blocks": scaled(base.optimizer["blocks"], multiple * change.scale)},
            **change.fields,
        )

    def setting(self, data: Task) -> Setting:
        return Setting(data.name, data.flat().problem, "mlp", self.width, DEPTH)

    def data(self, change: Change) -> Task:
        found = tasks.load(self.task)
        return found.binary() if change.binary else found

    def plan(self, change: Change, multiple: float, variant: str, seed: int, epochs: int) -> Plan:
        data = self.data(change)
        chosen = self.contender(change, multiple, variant)
        return plan(chosen, self.setting(data), data, seed, Budget(epochs, curve=False), PROCESS, "make ablation")

    def probes(self) -> dict[tuple[str, float], Plan]:
        """Short runs, by row and multiple of the rate."""
        return {
            (change.name, multiple): self.plan(change, multiple, f"{change.name}, rate x {multiple:g}", 0, PROBE_EPOCHS)
            for change in (BASE, *self.changes)
            for multiple in self.multiples
        }

    def rows(self, multiples: Mapping[str, float]) -> list[Plan]:
        """The runs of the table, the seed outermost; multiples: the chosen one of each row."""
        return [
            self.plan(change, multiples[change.name], change.name, seed, self.epochs)
            for seed in range(self.seeds)
            for change in (BASE, *self.changes)
        ]


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a change and predictor: mean test and train accuracy, and the difference to the base on test, paired by
    seed, with its interval; all in per cent."""
    test = final(frame, "test").pivot_table(
        index=["variant", "seed"], columns="predictor", values="value", dropna=False
    )
    train = final(frame, "train").groupby(["variant", "predictor"])["value"].mean()
    found = []
    for variant in dict.fromkeys(frame["variant"]):
        for predictor in PREDICTORS:
            values = 100 * test.loc[variant][predictor]
            mean, low, high = interval_of_all(values - 100 * test.loc[BASE.name][predictor])
            found.append({
                "variant": variant, "predictor": predictor, "test": values.mean(skipna=False),
                "train": 100 * train[variant, predictor], "difference": mean, "low": low, "high": high,
            })  # fmt: skip
    return pd.DataFrame(found)


def verdict(sign: int, low: float, high: float) -> str:
    """What the interval of a paired difference says about a claim of more (+1) or less (-1), or without one (0)."""
    if np.isnan(low):
        return DIVERGED
    if low <= 0 <= high:
        return NOTHING
    if sign == 0:
        return "better" if low > 0 else "worse"
    return HOLDS if (low > 0) == (sign > 0) else OPPOSITE


HEAD = """# Forward-forward with one thing changed

Made by `make ablation` (this page too): {task}, 784-{width}-{width}, {epochs} epochs, {seeds} seeds, float32 products
at precision "medium", the last epoch. The base: sum of squares, ReLU, continuous pixels, activities normalised, all
blocks but the first read, blocks trained together, the label written over the first pixels, hard negatives. Each row is
the base with one thing changed. The rate of the blocks is each row's own: of the multiples {multiples} of the base's,
the one with the best validation accuracy after two epochs (the mean of squares has the number of units as a factor
besides, and its peers push less by that). Everything else was chosen for the base. Without normalisation (of the image
and of activities) goodness begins far lower, so that row has a twentieth of the threshold, and ten times the rate
besides. One block after another, each block learns in its half of the epochs only.

Differences to the base are in points of test accuracy, paired by seed, with the Student t 95 % interval. A verdict
needs an interval without zero; of about forty, two will be wrong by chance. "Holds" and "the opposite" refer to the
claim in the last table; of the other rows nothing was claimed, and "better" or "worse" says what came out.
"""


def page(study: Study, table: pd.DataFrame, multiples: Mapping[str, float]) -> str:
    """The ablation table, the figure, and the claims with what came of them."""
    multiples_ = ", ".join(f"{m:g}" for m in study.multiples)
    head = HEAD.format(task=study.task, width=study.width, epochs=study.epochs, seeds=study.seeds, multiples=multiples_)
    by = {(row["variant"], row["predictor"]): row for row in table.to_dict("records")}
    rows, claims = [], []
    for change in (BASE, *study.changes):
        cells = [change.name]
        verdicts = []
        for predictor in PREDICTORS:
            row = by[change.name, predictor]
            verdicts.append(verdict(change.sign, row["low"], row["high"]))
            cells += [f"{row['test']:.2f} %", f"{row['train']:.2f} %"]
            cells += ["", ""] if change is BASE else [difference(row), verdicts[-1]]
        rows.append([*cells, f"{multiples[change.name] * change.scale:g}"])
        if change.claim:
            claims.append([change.name, change.claim, *verdicts])
    columns = [
        f"{predictor}: {what}" for predictor in PREDICTORS for what in ("test", "train", "difference", "verdict")
    ]
    figure = "![differences to the base](forward-forward-ablation/differences.png)"
    return "\n\n".join(
        [
            head.rstrip(),
            markdown(["changed", *columns, "rate x"], rows),
            figure,
            "## What is claimed, and what holds here",
            markdown(["change", "claim", *PREDICTORS], claims),
        ]
    )


def difference(row: Mapping[Any, Any]) -> str:
    """A difference with half of its interval."""
    if np.isnan(row["difference"]):
        return DIVERGED
    return f"{row['difference']:+.2f} ± {(row['high'] - row['low']) / 2:.2f}"


def run(study: Study, output: Path, store: Path, observer: Observer | None = None) -> pd.DataFrame:
    """Choose the rates, train the rows, publish, and return the table of differences."""
    probes = study.probes()
    each = list(probes.values())
    chosen = measured(each, carry_out(each, store, observer), store)
    multiples = best_multiples(probes, chosen)
    plans = study.rows(multiples)
    frame = measured(plans, carry_out(plans, store, observer), store)
    order = {change.name: i for i, change in enumerate((BASE, *study.changes))}
    frame = frame.sort_values(["variant", "run", "samples"], key=lambda c: c.map(order) if c.name == "variant" else c)
    folder = output / "forward-forward-ablation"
    write_rows(frame, folder)
    write_rows(chosen, folder / "rates")
    table = differences(frame)
    ablations.draw(table, BASE.name, folder)
    write_page(output / "forward_forward_ablation.md", page(study, table, multiples))
    return table


def main(output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Run the ablation and write its page.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    console = Console()
    with Bars(console) as bars:
        table = run(Study(), output, store, bars)
    console.print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)
