"""The study of streams: rules that see the data once, one sample at a time, and answer each before they learn from it.

Rates are the batch contenders' brought to a batch of one (`altprop.bench.streamed`), times the power of 3 with which a
contender answers best when the validation split is the stream, with the first seed. Its second half counts, since rates
that are best at the very beginning are too high for a long stream. With that the training split is streamed, in each
seed's own order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from altprop import tasks
from altprop.bench import cases
from altprop.bench.compare import Observer, carry_out, default_batch_size, measured, plan
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender, frozen, linear
from altprop.bench.hearing import ANSWER
from altprop.bench.meter import machine
from altprop.bench.prequential import SPLIT, StreamPlan
from altprop.bench.protocol import Budget
from altprop.bench.publish import markdown, write_page, write_rows
from altprop.bench.streamed import streamed
from altprop.bench.train import Plan, Process
from altprop.report import streaming, words
from altprop.report.figures import draw_streams
from altprop.report.replace import replaced
from altprop.tasks import Task
from altprop.terminal import Bars

RULES = (
    "signal-propagation",
    "forward-forward",
    "mono-forward",
    "backprop",
    "direct-feedback-alignment",
    "direct-random-target-projection",
    "error-forward",
    "pepita",
    "spela",
)
GOALS: Mapping[str, float] = {"signal-propagation (output)": 90.0, "forward-forward (head)": 90.0}
"""The least accuracy of the last 10,000 answers on MNIST, in per cent."""
COMMAND = "python -m altprop.bench.streaming"
FOLDER = "streaming"


@dataclass(frozen=True)
class Study:
    """Which rules on which stream; small ones for tests.

    reach: multiples of the rate go from 3^-reach to 3^reach.
    """

    task: str = "mnist"
    rules: tuple[str, ...] = RULES
    width: int = 500
    seeds: int = 3
    reach: int = 3

    def data(self) -> Task:
        return tasks.load(self.task).flat()

    def contenders(self) -> list[Contender]:
        """The rules; beside them a linear classifier, and a readout on random blocks."""
        setting = self.setting()
        common = contender("backprop", setting)
        return [*(contender(name, setting) for name in self.rules), linear(common, setting), frozen(common, "")]

    def setting(self) -> Setting:
        return Setting(self.task, self.data().problem, "mlp", self.width, 2)

    def plan(self, c: Contender, multiple: float, seed: int, data: Task) -> Plan:
        made = streamed(c, (self.task, "mlp"), default_batch_size(data), multiple=multiple)
        return plan(made, self.setting(), data, seed, Budget(1), Process(), COMMAND, kind=StreamPlan)


# The rates.

Probes = dict[tuple[str, int], float]
"""By contender and power of 3: accuracy of the answers in the validation stream's second half; 0 if it diverged."""


def probed(study: Study, store: Path, observer: Observer | None = None) -> Probes:
    """The rates times 1/3, 1 and 3, and beyond while the first or the last is the best."""
    found: Probes = {}
    asked = [(c, power) for c in study.contenders() for power in (-1, 0, 1)]
    while asked:
        found |= probe(study, asked, store, observer)
        asked = [(c, power) for c in study.contenders() for power in beyond(found, c.label, study.reach)]
    return dict(sorted(found.items()))


def probe(study: Study, asked: list[tuple[Contender, int]], store: Path, observer: Observer | None) -> Probes:
    data = validation_first(study.data())
    named = [(replace(c, variant=f"{c.variant} rate x 3^{power}".strip()), power) for c, power in asked]
    plans = [study.plan(c, 3.0**power, 0, data) for c, power in named]
    frame = measured(plans, carry_out(plans, store, observer), store)
    late = frame["split"].eq(SPLIT) & frame["metric"].eq("accuracy") & frame["samples"].gt(len(data.train) / 2)
    scores = frame[late & frame["status"].eq("ok")].groupby(["rule", "variant"])["value"].mean()
    own = zip(asked, named, strict=True)
    return {(c.label, power): scores.get((other.rule, other.variant), 0.0) for (c, power), (other, _) in own}


def validation_first(data: Task) -> Task:
    """The same task with its validation split as the stream."""
    digest = sha256(f"{data.digest}, its validation split as the stream".encode()).hexdigest()
    return replace(data, train=data.validation, digest=digest)


def best(found: Probes) -> dict[str, int]:
    """By contender the power at which it answered best; the lower one of equals."""
    return {name: max((p for c, p in found if c == name), key=lambda p: (found[name, p], -p)) for name, _ in found}


def beyond(found: Probes, name: str, reach: int) -> list[int]:
    """The power that comes after the best one, if that is the first or the last so far."""
    powers, top = [p for c, p in found if c == name], best(found)[name]
    return [p for p in (top - 1, top + 1) if p not in powers and abs(p) <= reach]


# The streams.


def streams(study: Study, powers: Mapping[str, int], store: Path, observer: Observer | None = None) -> pd.DataFrame:
    """Every contender's runs over the training split, the seed outermost."""
    data = study.data()
    plans = [study.plan(c, 3.0 ** powers[c.label], s, data) for s in range(study.seeds) for c in study.contenders()]
    return measured(plans, carry_out(plans, store, observer), store)


# The page.

HEAD = """# Learning while answering

Made by `{command}` (this page too): {task}, {samples:,} samples once, one at a time, in {seeds} orders (seeds); the
common net, two hidden blocks of {width}. Every sample is answered first and learned from in the same step; the answer
is that of the net as it was before the step. `altprop compare --stream` does the same with any task and rules.

Rates are those of the contender for batches, brought to a batch of one (Adam's by the root of the sizes' ratio, SGD's
by the ratio), constant, times a power of 3: the one that answers best in the second half of a stream of the
{validation:,} validation images, with the first seed. Neither training nor test images chose anything. Test is the
accuracy at the end.
"""
ANSWERS = """"One pass": the learning pass gives the answer on its way. That is measured: in the first 20 steps, and in
one of 1,000 after them, the net predicts beforehand, and what is overheard must be the same: "same bits", or to
rounding, with the largest difference as a share of the largest score. "Two passes": the net predicts, then it learns.
"""
DELAYS = """## What waits for what

From a sample's arrival to the answer and to the update of each part: operations, in units of a forward pass of one
sample, which are counted and do not move. Milliseconds to the answer: median on the processor, and median and 95th
percentile by the clock, one thread of a busy machine ({processor}); they give the scale and no more.
"""
RATES = """## How the rates were chosen

Accuracy of the answers in the second half of the validation images as a stream, by the multiple of the rate; 0:
diverged.
"""


def page(study: Study, board: pd.DataFrame, found: Probes, processor: str) -> str:
    data = study.data()
    command = COMMAND if study.rules == RULES else f"{COMMAND} --rules {' '.join(study.rules)}"
    head = HEAD.format(command=command, task=study.task, samples=len(data.train), seeds=study.seeds, width=study.width,
                       validation=len(data.validation))  # fmt: skip
    parts = [
        head,
        accuracies(board, best(found), GOALS if study.task == "mnist" else {}),
        ANSWERS,
        f"![accuracy of the answers against samples]({FOLDER}/{study.task}-stream.png)",
        DELAYS.format(processor=processor),
        delays(board),
        f"![what a sample waits for]({FOLDER}/delays.png)",
        RATES,
        rates(found),
    ]
    return "\n\n".join(part.rstrip() for part in parts)


def accuracies(board: pd.DataFrame, powers: Mapping[str, int], goals: Mapping[str, float]) -> str:
    lines = []
    for row in board.to_dict("records"):
        goal = goals.get(row["label"])
        same = "same bits" if row["gap"] == 0 else f"to {row['gap']:.0e}"
        answers = streaming.answers_in(row)
        lines.append([
            row["label"],
            "" if goal is None else f"{goal:.1f}",
            words.percent(row["last"]),
            f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
            ", ".join(words.percent(value).removesuffix(" %") for value in row["each"]),
            words.percent(row["all"]),
            words.percent(row["test"]),
            f"{answers}, {same}" if row["one_pass"] > 0 else answers,
            f"{3.0 ** powers[cases.label(row['rule'], row['variant'])]:.3g}",
            "" if goal is None else "yes" if 100 * min(row["each"]) >= goal else "**no**",
        ])  # fmt: skip
    columns = ["contender", "goal", "the last 10,000", "interval", "each seed", "all", "test", "answers in", "rate x"]
    return markdown([*columns, "reached"], lines)


def delays(board: pd.DataFrame) -> str:
    lines = []
    for row in board.to_dict("records"):
        said = (f"**{event}**" if event == ANSWER else event for event in row["passes"])
        each = ", ".join(f"{name} {passes:.2f}" for name, passes in zip(said, row["passes"].values(), strict=True))
        lines.append([row["label"], each, *map(streaming.milliseconds, row["seconds"])])
    return markdown(["contender", "after forward passes", "ms, processor", "ms, clock", "95 %"], lines)


def rates(found: Probes) -> str:
    powers = sorted({power for _, power in found})
    lines = [
        [name, *(words.percent(found[name, p]) if (name, p) in found else "" for p in powers)] for name in best(found)
    ]
    return markdown(["contender", *(f"x {3.0**power:.3g}" for power in powers)], lines)


def run(study: Study, output: Path, store: Path, observer: Observer | None = None) -> pd.DataFrame:
    """Choose the rates, stream, and publish; returns the board."""
    found = probed(study, store, observer)
    frame = streams(study, best(found), store, observer)
    folder = output / FOLDER
    write_rows(frame, folder)
    with replaced(folder / "rates.csv") as path:
        columns = ["contender", "power", "accuracy"]
        pd.DataFrame([(*key, value) for key, value in found.items()], columns=columns).to_csv(path, index=False)
    board = streaming.frame(frame)
    draw_streams(frame, folder, ("png", "svg"))
    streaming.draw_delays(board, folder)
    write_page(output / "streaming.md", page(study, board, found, machine()["processor"]))
    return board


def main(
    output: Path = Path("docs/results"),
    store: Path = Path("recipes.db"),
    rules: tuple[str, ...] = RULES,
    seeds: int = 3,
) -> None:
    """Stream MNIST through several rules, and write the page.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
        rules: which ones.
        seeds: how many orders of the samples.
    """
    with Bars(Console()) as bars:
        board = run(Study(rules=rules, seeds=seeds), output, store, bars)
    Console().print(board[["label", "last", "all", "test", "status"]].to_string())


if __name__ == "__main__":
    tyro.cli(main)
