"""The study of costs: one table for rules of every family and the controls of backpropagation, with a verdict a column.

Accuracy after a short budget, each rule at rates chosen on validation alike; seconds of a step as a ratio to
backpropagation's (all rules in turn in every round, one thread), operations, peak bytes of a step, and bytes of what
only training has.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from rich.console import Console
from torch import Tensor

from altprop import rules, tasks
from altprop.bench import meter
from altprop.bench.compare import shaped
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.evaluate import Scores, scores
from altprop.bench.publish import markdown, write_page
from altprop.bench.rates import Tuned, rated, tuned
from altprop.bench.speed import quartiles, seconds
from altprop.bench.stats import interval, paired
from altprop.bench.teaching import trained
from altprop.bench.train import Process
from altprop.errors import UsageError
from altprop.report.replace import replaced
from altprop.rule import Rule
from altprop.tasks import Task

FOLDER, FILE = "costs", "costs.md"
RULES = (
    "backprop",
    "deep-supervision",
    "checkpointed-backprop",
    "accumulated-backprop",
    "signal-propagation",
    "forward-forward",
    "feedback-alignment",
    "direct-feedback-alignment",
    "local-classifier",
    "predsim",
)
CONTROLS = RULES[:4]
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Study:
    """The nets by their kind, and what is measured on them; small ones for tests."""

    task: str = "mnist"
    nets: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"mlp": (256,) * 4, "conv": (16, 32)})
    epochs: int = 2
    seeds: int = 3
    batch: int = 128
    rounds: int = 20
    multiples: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)

    def data(self, net: str) -> Task:
        return shaped(tasks.load(self.task), net)

    def setting(self, net: str) -> Setting:
        widths = self.nets[net]
        return Setting(self.task, self.data(net).problem, net, widths[0], len(widths))

    def contenders(self, net: str) -> dict[str, Contender]:
        """The rules that there are and that take the net, each with its own settings, on the same hidden widths."""
        setting, found = self.setting(net), {}
        for name in (name for name in RULES if name in rules.RULES):
            chosen = replace(contender(name, setting), widths=self.nets[net])
            if not rules.find(name).refuses(chosen.network(setting, 0), setting.problem):
                found[name] = chosen
        return found


def steps(study: Study) -> Iterator[dict[str, object]]:
    """One row a net and rule: what a step costs; seconds over backpropagation's, the median of the rounds and its
    quartiles."""
    for net in study.nets:
        setting, chosen = study.setting(net), study.contenders(net)
        batch = study.data(net).train.batch(slice(0, study.batch))
        with Process().applied(0):
            times = step_ratios({name: c.build(setting, 0) for name, c in chosen.items()}, *batch, study.rounds)
            for name, c in chosen.items():
                cost = meter.cost(c.build(setting, 0), *batch)
                low, middle, high = times[name]
                yield {"net": net, "rule": name, "seconds": middle, "seconds_low": low, "seconds_high": high,
                       "operations": cost.step_operations, "peak_bytes": cost.peak_step_bytes,
                       "training_only_bytes": FLOAT_BYTES * (cost.parameters - cost.parameters_inference)}  # fmt: skip


def step_ratios(built: dict[str, Rule], x: Tensor, y: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step over backpropagation's, all rules in turn in every round: quartiles of the rounds."""
    times: dict[str, list[float]] = {name: [] for name in built}
    for round_ in range(rounds + 3):  # three rounds to warm up
        for name, rule in built.items():
            taken = seconds(partial(rule.step, x, y))
            if round_ >= 3:
                times[name].append(taken)
    return {name: quartiles(taken, times["backprop"]) for name, taken in times.items()}


def accuracies(study: Study) -> Iterator[dict[str, object]]:
    """One row a net, rule and seed: test accuracy, at the rate that is best for the rule."""
    for net in study.nets:
        data, setting = study.data(net), study.setting(net)
        for name, c in study.contenders(net).items():
            multiple, tests = at_best_rate(c, setting, data, study)
            for seed, test in enumerate(tests):
                yield {"net": net, "rule": name, "seed": seed, "multiple": multiple, "test": test}


def at_best_rate(c: Contender, setting: Setting, data: Task, study: Study) -> Tuned:
    """The multiple of the contender's rates that is best on validation, and the test accuracy of each seed at it."""

    def taught(multiple: float, seed: int) -> Scores:
        with Process().applied(seed):
            return scores(trained(rated(c, multiple), setting, data, study.epochs, seed), data)

    return tuned(taught, study.multiples, study.seeds)


PARTS: Mapping[str, Callable[[Study], Iterator[dict[str, object]]]] = {"steps": steps, "accuracies": accuracies}
COLUMNS = {
    "test": "test accuracy",
    "seconds": "seconds of a step",
    "operations": "operations of a step",
    "peak_bytes": "peak bytes of a step",
    "training_only_bytes": "bytes that only training has",
}


def page(table: pd.DataFrame, study: Study) -> str:
    """The study in Markdown: for each net a table, and a verdict on each column."""
    *rest, last = (f"{multiple:g}" for multiple in study.multiples)
    multiples = f"{', '.join(rest)} and {last}"
    parts = [
        f"""# What rules cost

Made by `python -m altprop.bench.costs` (this page too). {study.task}, {study.epochs} epochs, {study.seeds} seeds, each
rule with its own contender's settings, its activation among them (whose seconds count), at {multiples}
times its rates (and on past an end that is best), whichever is best on validation (one seed); test accuracy at the last
epoch, of the predictor that does best on validation.
Seconds, operations and peak bytes are those of one step on {study.batch} samples, as ratios to backpropagation's:
seconds are medians over {study.rounds} rounds in which all rules take turns, one thread, with quartiles (where those of
two rules overlap, neither is faster); peak bytes leave out parameters, optimizer state and the batch. The last column
is what no prediction reads: local heads, feedback weights. Forward-forward has heads in the place of the output block.
"""
    ]
    for net, own in table.groupby("net", sort=False):
        widths = "-".join(map(str, study.nets[str(net)]))
        parts += [f"## {net}, {widths}", costs(own), "\n".join(f"- {line}" for line in verdicts(own))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def costs(own: pd.DataFrame) -> str:
    """The table of one net."""
    plain = own[own["rule"] == "backprop"].iloc[0]
    rows = []
    for rule, group in own.groupby("rule", sort=False):
        mean, low, high = interval(100 * group["test"])
        first = group.iloc[0]
        within = f"{low:.2f} to {high:.2f}" if len(group) > 1 else ""
        took = f"{first['seconds']:.2f} ({first['seconds_low']:.2f} to {first['seconds_high']:.2f})"
        ratios = [f"{first[column] / plain[column]:.2f}" for column in ("operations", "peak_bytes")]
        only = f"{first['training_only_bytes']:,}"
        rows.append([str(rule), f"{first['multiple']:g}", f"{mean:.2f} %", within, took, *ratios, only])
    return markdown(
        ["rule", "rates ×", "test", "interval", "seconds", "operations", "peak bytes", "training only, bytes"], rows
    )


def verdicts(own: pd.DataFrame) -> list[str]:
    """One line a column: the best rule beside the best of backpropagation and its controls."""
    means: dict[Any, Any] = own.groupby("rule", sort=False).mean(numeric_only=True).to_dict("index")
    controls = [rule for rule in means if rule in CONTROLS]
    others = [rule for rule in means if rule not in CONTROLS]
    found = []
    for column, words in COLUMNS.items():
        ahead = {rule: row[column] if column == "test" else -row[column] for rule, row in means.items()}
        best, rival = (max(names, key=ahead.__getitem__) for names in (others, controls))
        low = high = ahead[best] - ahead[rival]  # counts are the same every time
        if column == "test":
            _, low, high = paired(own[own["rule"] == best], own[own["rule"] == rival], column)
        elif column == "seconds":
            low = means[rival]["seconds_low"] - means[best]["seconds_high"]
            high = means[rival]["seconds_high"] - means[best]["seconds_low"]
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "no better than"
        plain = means["backprop"][column]
        one, other = (shown(column, means[rule][column], plain) for rule in (best, rival))
        found.append(
            f"{words}: the best rule, {best} ({one}), is {verdict} the best of backpropagation and its controls, "
            f"{rival} ({other})"
        )
    return found


def shown(column: str, value: float, plain: float) -> str:
    """As in the table; plain: backpropagation's."""
    if column == "test":
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if column == "training_only_bytes" else f"{value / plain:.2f}"


def run(study: Study, output: Path, parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure these parts, and write the page from all that is there."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        with replaced(folder / f"{part}.csv") as path:
            pd.DataFrame(PARTS[part](study)).to_csv(path, index=False, float_format="%.6g")
    missing = [part for part in PARTS if not (folder / f"{part}.csv").exists()]
    if missing:
        raise UsageError(f"{folder} has no {missing[0]}.csv, without which there is no page; add --parts {missing[0]}")
    table = pd.read_csv(folder / "accuracies.csv").merge(pd.read_csv(folder / "steps.csv"), on=["net", "rule"])
    write_page(output / FILE, page(table, study))


def main(output: Path = Path("docs/results"), parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Measure what rules cost, and write the page with its rows.

    Args:
        output: the folder for what is published.
        parts: steps, accuracies; one that is not measured anew stays as it is.
    """
    run(Study(), output, parts)
    Console().print(f"written: {output / FILE}")


if __name__ == "__main__":
    tyro.cli(main)
