"""How feedback and forward weights turn towards each other while a rule learns, and how near its updates come to
backpropagation's; and what is left of the accuracy where only some of five hidden blocks get feedback at all.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console
from torch import Tensor

from altprop import tasks
from altprop.analysis.alignment import by_backprop, compare, updates
from altprop.analysis.angles import angles
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import Scores, scores
from altprop.bench.publish import markdown, write_page
from altprop.bench.rates import rated, tuned
from altprop.bench.stats import interval
from altprop.bench.teaching import lessons, teach
from altprop.bench.train import Process
from altprop.report import turning
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.tasks import Task

FOLDER, FILE = "feedback_angles", "feedback_angles.md"
HEAD = """# Angles of feedback

Made by `python -m altprop.bench.feedback_angles` (this page too). MNIST, {epochs} epochs ({partial_epochs}
where only some blocks get feedback), {seeds} seeds, every rule with its contender's settings.
"""


@dataclass(frozen=True)
class Study:
    """What is looked at, on which net; small ones for tests."""

    task: str = "mnist"
    width: int = 256
    epochs: int = 5
    partial_epochs: int = 2
    seeds: int = 3
    looks: int = 12
    rules: tuple[str, ...] = ("feedback-alignment", "sign-symmetry", "kolen-pollack", "weight-mirror",
                              "direct-feedback-alignment", "sign-direct-feedback-alignment",
                              "direct-random-target-projection", "direct-kolen-pollack")  # fmt: skip
    multiples: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    partial: tuple[str, ...] = ("direct-feedback-alignment", "feedback-alignment", "backprop")
    depth: int = 5

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def contender(self, rule: str, depth: int) -> tuple[Contender, Setting]:
        setting = Setting(self.task, self.data().problem, "mlp", self.width, depth)
        return replace(contender(rule, setting), widths=(self.width,) * depth), setting


def turned(study: Study) -> Iterator[dict[str, object]]:
    """One row a rule, seed, look and block: the angle between B and W, and that between its update and
    backpropagation's, in degrees. Looks are at equal steps of the logarithm, and at the start."""
    data = study.data()
    x, y = data.train.batch(slice(0, 1000))
    for rule in study.rules:
        chosen, setting = study.contender(rule, 2)
        size, total = chosen.batch_size or 128, study.epochs * len(data.train)
        for seed in range(study.seeds):
            with Process().applied(seed):
                learner = chosen.build(setting, seed)
                waiting = [0, *(size * (total / size) ** (i / (study.looks - 1)) for i in range(study.looks))]
                for done in lessons(learner, data, size, study.epochs, seed):
                    if waiting and done >= min(waiting[0], total):
                        waiting = [look for look in waiting if look > done]
                        yield from looked(learner, x, y, {"rule": rule, "seed": seed, "samples": done})


def looked(rule: Rule, x: Tensor, y: Tensor, about: dict[str, object]) -> Iterator[dict[str, object]]:
    weights = angles(rule)
    for row in compare(updates(rule, x, y)[0], by_backprop(rule, x, y)):
        cosine = max(-1.0, min(1.0, row.cosine))
        yield {**about, "block": row.part, "weights": weights.get(row.part, math.nan),
               "update": math.degrees(math.acos(cosine))}  # fmt: skip


def some(study: Study) -> Iterator[dict[str, object]]:
    """One row a rule, number of hidden blocks that learn, end from which they are counted, and seed; each at the rate
    that is best for it."""
    for rule in study.partial:
        chosen, setting = study.contender(rule, study.depth)
        for count in range(study.depth + 1):
            for end in ("output", "input") if 0 < count < study.depth else ("both",):
                at = partial(taught, study, chosen, setting, count, end)
                multiple, tests = tuned(at, study.multiples, study.seeds)
                for seed, test in enumerate(tests):
                    yield {"rule": rule, "blocks": count, "end": end, "seed": seed, "multiple": multiple, "test": test}


def taught(
    study: Study, chosen: Contender, setting: Setting, count: int, end: str, multiple: float, seed: int
) -> Scores:
    """What comes of so many blocks, counted from one end, that learn at a multiple of the contender's rates."""
    data = study.data()
    with Process().applied(seed):
        learner = learning(rated(chosen, multiple), setting, seed, count, end)
        teach(learner, data, chosen.batch_size or 128, study.partial_epochs, seed)
        return scores(learner, data)


def learning(chosen: Contender, setting: Setting, seed: int, count: int, end: str) -> Rule:
    """The rule on a net of which only so many hidden blocks learn, counted from one end; and the output block."""
    hidden = range(setting.depth)
    taught = set(hidden[:count] if end == "input" else hidden[setting.depth - count :])

    net = chosen.network(setting, seed)
    for i in set(hidden) - taught:
        net[i].requires_grad_(False)
    return chosen.build(setting, seed, net)


PARTS: Mapping[str, Callable[[Study], Iterator[dict[str, object]]]] = {"turned": turned, "some": some}


def run(study: Study, output: Path, parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure these parts, and write the page from all that are there."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        table = pd.DataFrame(PARTS[part](study))
        with replaced(folder / f"{part}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g")
    sections = [HEAD.format(**vars(study))]
    sections += [SECTIONS[part](pd.read_csv(folder / f"{part}.csv"), folder)
                 for part in PARTS if (folder / f"{part}.csv").exists()]  # fmt: skip
    write_page(output / FILE, "\n\n".join(text.rstrip() for text in sections))


def of_turned(table: pd.DataFrame, folder: Path) -> str:
    turning.draw_turned(table, folder)
    rows = []
    for rule, own in table.groupby("rule", sort=False):
        for block, these in own.groupby("block", sort=True):
            first, last = (these[these["samples"] == moment(these["samples"])] for moment in (min, max))
            cells = [f"{found[column].mean():.0f}" if found[column].notna().any() else ""
                     for column in ("weights", "update") for found in (first, last)]  # fmt: skip
            rows.append([str(rule), str(block), *cells])
    return f"""## Through training

784-256-256-10, degrees, mean of seeds. Between B and W: 90 at random, 0 if they point the same way; for direct
feedback, between B_l and the product of all later weights. Between a rule's update of a block and backpropagation's on
the same net: on 1,000 training images; below 90 it points downhill.

{markdown(["rule", "block", "B, W at first", "at the end", "update, at first", "at the end"], rows)}

![angles through training]({FOLDER}/turned.png)
"""


def of_some(table: pd.DataFrame, folder: Path) -> str:
    turning.draw_some(table, folder)
    rows = []
    for (rule, blocks, end, multiple), these in table.groupby(["rule", "blocks", "end", "multiple"], sort=False):
        mean, low, high = interval(100 * these["test"])
        where = "" if end == "both" else f"from the {end}"
        rows.append(
            [str(rule), f"{blocks} {where}".strip(), f"{multiple:g}", f"{mean:.2f} %", f"{low:.2f} to {high:.2f}"]
        )
    return f"""## Feedback in only some of five blocks

784 and five hidden blocks of 256, test accuracy at the last epoch, each row at the multiple of its contender's rates
that is best on validation (one seed), of a grid that goes on past an end that is best. The hidden blocks that do not
learn stay as they were drawn, and the output block learns always. Counted from the input, the error of feedback
alignment and backpropagation still comes down through the blocks that do not learn; that of direct feedback alignment
goes past them.

{markdown(["rule", "hidden blocks that learn", "rates ×", "test", "interval"], rows)}

![accuracy against the number of blocks that learn]({FOLDER}/some.png)
"""


SECTIONS = {"turned": of_turned, "some": of_some}


def main(output: Path = Path("docs/results"), parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure how feedback and forward weights turn, and write the page with its rows and figures.

    Args:
        output: the folder for what is published.
        parts: turned, some; one that is not measured anew stays as it is.
    """
    run(Study(), output, parts)
    Console().print(f"written: {output / FILE}")


if __name__ == "__main__":
    tyro.cli(main)
