"""A recipe: contenders with the numbers that they must reach, and its section on a page of results."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from altprop import tasks
from altprop.bench import protocol
from altprop.bench.cases import label
from altprop.bench.compare import controlled, plan, shaped
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.bench.protocol import Budget
from altprop.bench.publish import draw_curves, markdown, read_rows, write_rows
from altprop.bench.stats import final, interval
from altprop.bench.train import Plan, Process

COMMAND = "make recipes"


@dataclass(frozen=True)
class Goal:
    """The least test accuracy, and a published one with its source; in per cent, None where there is none."""

    least: float | None = None
    published: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Lead:
    """How many points of test accuracy one contender must be ahead of another: in the mean of seeds, or on each."""

    ahead: str
    behind: str
    least: float
    each: bool = False

    def verdict(self, frame: pd.DataFrame) -> str:
        """What it is, seed by seed, in a sentence."""
        last = final(frame)
        last = last[last["predictor"] == ""]
        last = last.assign(label=[label(*names) for names in zip(last["rule"], last["variant"], strict=True)])
        by = 100 * last.pivot(index="seed", columns="label", values="value")
        gaps = (by[self.ahead] - by[self.behind]).sort_index()
        reached = gaps.min(skipna=False) if self.each else gaps.mean(skipna=False)
        words = "on each" if self.each else "in the mean"
        each, verdict = ", ".join(f"{gap:+.2f}" for gap in gaps), "yes" if reached >= self.least else "**no**"
        return (
            f"{self.ahead} minus {self.behind}, seed by seed: {each} points (goal: at least {self.least:+.2f} "
            f"{words}): {verdict}."
        )


@dataclass(frozen=True)
class Recipe:
    """One comparison and its goals.

    goals: by contender ("rule", or "rule · variant") and predictor. chosen: the contenders, from the setting; without
    it, those of the rules that have a goal. controls: all that a comparison has, backprop on their nets only, or none.
    curve: whether there are points, and a figure, on the way to the end too. leads: which contender must be ahead of
    which. text: what a reader should know before the table.
    """

    name: str
    epochs: int
    goals: Mapping[tuple[str, str], Goal]
    task: str = "mnist"
    net: str = "mlp"
    width: int | None = None
    depth: int = protocol.DEFAULT_DEPTH
    seeds: int = protocol.DEFAULT_SEEDS
    precision: str = "highest"
    chosen: Callable[[Setting], list[Contender]] | None = None
    controls: Literal["all", "same net", "none"] = "all"
    curve: bool = True
    leads: tuple[Lead, ...] = ()
    text: str = ""

    @property
    def folder(self) -> str:
        """Where its rows and figures lie: its name in file names."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def plans(self) -> list[Plan]:
        """Every run, the seed outermost."""
        data = tasks.load(self.task)
        width = self.width or protocol.WIDTH.get(self.task, protocol.DEFAULT_WIDTH)
        setting = Setting(data.name, shaped(data, self.net).problem, self.net, width, self.depth)
        contenders = self.contenders(setting)
        if self.controls != "none":
            contenders = controlled(contenders, setting, data, same_net=self.controls == "same net")
        budget, process = Budget(self.epochs, curve=self.curve), Process(precision=self.precision)
        return [plan(c, setting, data, s, budget, process, COMMAND) for s in range(self.seeds) for c in contenders]

    def contenders(self, setting: Setting) -> list[Contender]:
        """Those that the recipe is about, without the controls."""
        if self.chosen is not None:
            return self.chosen(setting)
        return [contender(name, setting) for name in dict.fromkeys(rule for rule, _ in self.goals)]


def of(rule: str, variant: str = "", **changes: Any) -> Callable[[Setting], list[Contender]]:
    """The rule's own contender with some fields changed; options are added to its own."""

    def chosen(setting: Setting) -> list[Contender]:
        own = contender(rule, setting)
        options = {**own.options, **changes.get("options", {})}
        return [replace(own, variant=variant, **{**changes, "options": options})]

    return chosen


def publish(recipe: Recipe, frame: pd.DataFrame, output: Path) -> None:
    """Write a recipe's rows and figures into its folder."""
    write_rows(frame, output / recipe.folder)
    if recipe.curve:
        draw_curves(frame, output / recipe.folder)


def section(recipe: Recipe, output: Path) -> str:
    """A recipe's section of the page, from what is published in its folder; empty if nothing is."""
    frame = read_rows(output / recipe.folder)
    if frame.empty:
        return ""
    notes = [f"Note: {note}." for note in frame["task_note"].unique() if note]
    pictures = sorted((output / recipe.folder).glob("*-accuracy-*.png"), key=lambda path: "samples" not in path.stem)
    shown = [f"![{path.stem}]({recipe.folder}/{path.name})" for path in pictures]
    verdicts = [lead.verdict(frame) for lead in recipe.leads]
    return "\n\n".join([f"## {recipe.name}", about(recipe, frame), *notes, table(recipe, frame), *verdicts, *shown])


def about(recipe: Recipe, frame: pd.DataFrame) -> str:
    """What was run, in a sentence, and the recipe's own words."""
    seeds, precision = frame["seed"].nunique(), recipe.precision
    words = ", ".join([recipe.task, several(recipe.epochs, "epoch"), several(seeds, "seed")])
    words += "." if precision == "highest" else f', products of float32 at precision "{precision}".'
    return f"{words} {recipe.text}".strip()


def several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


HEAD = ["contender", "goal", "published", "test", "interval", "each seed", "train", "minutes", "reached"]


def lines(recipe: Recipe, frame: pd.DataFrame) -> list[list[str]]:
    """One row of cells a contender, under HEAD, those with goals first: goal, published number, mean over seeds with
    its interval, every seed, train accuracy, and the median time of training."""
    by = ["rule", "variant", "predictor"]
    train = final(frame, "train").groupby(by)["value"].mean()
    rows = []
    for key, group in final(frame, "test").groupby(by, sort=False):
        rule, variant, predictor = (str(word) for word in key)
        goal = recipe.goals.get((label(rule, variant), predictor), Goal())
        values = 100 * group.sort_values("seed")["value"]
        mean, low, high = interval(values)
        cells = [
            label(rule, variant, predictor),
            "" if goal.least is None else f"{goal.least:.1f}",
            "" if goal.published is None else f"{goal.published:.2f} ({goal.source})",
            f"{mean:.2f} %",
            "" if math.isnan(low) else f"{low:.2f} to {high:.2f}",
            ", ".join("diverged" if math.isnan(value) else f"{value:.2f}" for value in values),
            f"{100 * train[rule, variant, predictor]:.2f} %",
            f"{group['train_seconds'].median() / 60:.1f}",
            "" if goal.least is None else "yes" if mean >= goal.least and values.notna().all() else "**no**",
        ]
        rows.append((goal == Goal(), -mean, cells))
    return [cells for *_, cells in sorted(rows)]


def table(recipe: Recipe, frame: pd.DataFrame) -> str:
    """The recipe's contenders in Markdown; without a column of published numbers where there are none."""
    head, body = HEAD, lines(recipe, frame)
    if not any(cells[2] for cells in body):
        head, body = head[:2] + head[3:], [cells[:2] + cells[3:] for cells in body]
    return markdown(head, body)


def summary(recipes: Sequence[Recipe], output: Path) -> str:
    """One row a contender that has a goal or a published number, of every published recipe; empty if none is."""
    body = []
    for recipe in recipes:
        frame = read_rows(output / recipe.folder)
        if frame.empty:
            continue
        length = f"{several(recipe.epochs, 'epoch')}, {several(frame['seed'].nunique(), 'seed')}"
        for name, goal, published, test, _, _, train, minutes, reached in lines(recipe, frame):
            if goal or published:
                where = f"[{recipe.name}](#{recipe.folder}), {length}"
                body.append([where, name, goal, published, test, train, minutes, reached])
    head = ["where", "contender", "goal", "published", "test", "train", "minutes", "reached"]
    return markdown(head, body) if body else ""
