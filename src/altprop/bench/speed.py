"""`make bench`: what a step of each rule costs, beside backprop's on the same net and beside its own floor.

One thread, all rules in turn in every round, the same fused Adam for all. The floor is what cannot be saved: the rule's
own recorded matrix products, replayed on their own, and its optimizers' steps. Ratios are medians over the rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro

from altprop import rules
from altprop.analysis.trace import Trace
from altprop.bench import meter
from altprop.bench.contender import Contender, Setting, adam
from altprop.bench.contenders import contender
from altprop.bench.publish import markdown, write_page
from altprop.errors import UsageError, heard
from altprop.rule import Problem, Rule

INPUTS, CLASSES, WIDTH, BATCH = 784, 10, 1000, 256
DEPTHS = (4, 16, 64)
MOST_OF_FLOOR = 1.3
VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "pepita, recompute (MEMPEPITA)": ("pepita", {"recompute": True}),
    "sign-symmetry, magnitudes of each batch (brSF)": ("sign-symmetry", {"magnitudes": "batch"}),
    "sign-symmetry, fixed magnitudes (frSF)": ("sign-symmetry", {"magnitudes": "fixed"}),
}
"""Rules with options that change what a step costs, by the words in the tables."""


@dataclass
class Lane:
    """One rule under measurement: its step, its floor, and the seconds of each round."""

    rule: str
    operations: int
    step: Callable[[], object]
    floor: Callable[[], object]
    steps: list[float]
    floors: list[float]


def build(name: str, width: int, depth: int) -> Rule:
    """The rule's contender with `depth` hidden blocks of `width` and fused Adam for every part."""
    setting = Setting("speed", Problem((INPUTS,), CLASSES), "mlp", width, depth)
    rule, options = VARIANTS.get(name, (name, {}))
    chosen: Contender = contender(rule, setting)
    chosen = replace(chosen, widths=(width,) * depth, optimizer={"all": adam(1e-4)}, schedule="constant")
    chosen = replace(chosen, options={**chosen.options, **options})
    return chosen.build(setting, seed=0)


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, INPUTS, generator=generator)
    return x, torch.randint(0, CLASSES, (size,), generator=generator)


def lane(name: str) -> Lane:
    """Trace the rule's third step (see `meter.cost`), and make its floor from what was recorded."""
    rule = build(name, WIDTH, 3)
    x, y = batch(BATCH)
    rule.step(x, y)
    rule.step(x, y)
    with Trace(meter.named_tensors(rule)) as trace:
        rule.step(x, y)
    generator = torch.Generator().manual_seed(0)
    products = [product.prepare(generator) for product in trace.products]
    other = build(name, WIDTH, 3)
    for parameter in other.parameters():
        parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def floor() -> None:
        for product in products:
            product()
        for optimizer in other.optimizers.values():
            optimizer.step()

    return Lane(name, trace.operations, lambda: rule.step(x, y), floor, [], [])


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the rounds' ratios: both were measured within the same moment of a noisy machine."""
    return quartiles(one, other)[1]


def quartiles(one: list[float], other: list[float]) -> list[float]:
    """Of the rounds' ratios: the lower one, the median, the upper one."""
    found: list[float] = np.percentile(np.divide(one, other), (25, 50, 75)).tolist()
    return found


def speed(names: list[str], rounds: int) -> pd.DataFrame:
    """One row a rule: step / backprop, operations / backprop, step / floor."""
    lanes = [lane(name) for name in dict.fromkeys(["backprop", *names])]
    for round_ in range(rounds + 3):  # three rounds to warm up
        for each in lanes:
            step, floor = seconds(each.step), seconds(each.floor)
            if round_ >= 3:
                each.steps.append(step)
                each.floors.append(floor)
    base = lanes[0]
    return pd.DataFrame(
        {
            "rule": each.rule,
            "step_ms": round(1000 * statistics.median(each.steps), 2),
            "step / backprop": round(ratio(each.steps, base.steps), 2),
            "operations / backprop": round(each.operations / base.operations, 3),
            "step / floor": round(ratio(each.steps, each.floors), 2),
        }
        for each in lanes
    )


def memory(names: list[str], width: int = 60, size: int = 32) -> pd.DataFrame:
    """One row a rule: peak bytes of a step (parameters and optimizer state excluded) at each depth; empty where the
    rule cannot train a net of that depth."""
    x, y = batch(size)
    rows: list[dict[str, object]] = []
    for name in names:
        peaks: dict[str, object] = {}
        for depth in DEPTHS:
            try:
                peaks[f"depth {depth}"] = meter.cost(build(name, width, depth), x, y).peak_step_bytes
            except UsageError:
                peaks[f"depth {depth}"] = ""
        rows.append({"rule": name, **peaks})
    return pd.DataFrame(rows)


HEAD = f"""# What a step costs

Made by `make bench` (this page too): {INPUTS}-{WIDTH}-{WIDTH}-{WIDTH}-{CLASSES}, batch {BATCH}, one thread, fused
Adam for every part, all rules in turn in each of {{rounds}} rounds. The floor is the rule's own recorded matrix
products replayed on their own, and its optimizers' steps. Ratios are medians over the rounds; milliseconds are those
of one noisy machine ({{processor}}), and only here to give the scale. Every rule trains the same hidden blocks;
those that train no output block have heads in its place.
"""
MEMORY = """## Peak bytes of a step against depth

Hidden blocks of 60 units, batch 32; parameters, optimizer state and the batch are not counted. Flat: the same number.
Empty: the rule does not train a net so deep, and says why.
"""


def table(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table."""
    rows = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in frame.to_dict("records")]
    return markdown([str(name) for name in frame], rows)


def goals(found: pd.DataFrame) -> str:
    """What is asked of feedback rules, and what they reach, from the rows of `speed`."""
    rows = found.set_index("rule")
    of_family = [name for name, place in rules.places().items() if place.startswith("altprop.rules.feedback.")]
    floors = rows["step / floor"][[name for name in rows.index if VARIANTS.get(name, (name, {}))[0] in of_family]]
    most, direct = float(floors.max()), float(rows["step / backprop"]["direct-feedback-alignment"])
    return (
        f"Feedback rules: a step within {MOST_OF_FLOOR} of the floor: {met(most <= MOST_OF_FLOOR)} (the most: {most}, "
        f"{floors.idxmax()}). Direct feedback alignment faster than backpropagation: {met(direct < 1)} ({direct})."
    )


def met(goal: bool) -> str:
    return "yes" if goal else "**no**"


def main(rounds: int = 30, output: Path = Path("docs/results")) -> None:
    """Measure every rule, print the tables and write them as a page.

    Args:
        rounds: how often each step and floor is timed, in turn.
        output: folder for speed.md.
    """
    torch.set_num_threads(1)
    names = [*rules.places(), *VARIANTS]
    head = HEAD.format(rounds=rounds, processor=meter.machine()["processor"])
    with heard(lambda warning: None):  # of inputs that are noise
        bytes_ = table(memory(names))  # first: it takes a minute, and what it finds fault with would lose the times
        steps = speed(names, rounds)
    page = "\n".join([head, table(steps), "", goals(steps), "", MEMORY, bytes_])
    print(page)
    write_page(output / "speed.md", page)


if __name__ == "__main__":
    tyro.cli(main)
