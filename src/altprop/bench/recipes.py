"""`make recipes`: the numbers of docs/results on MNIST, from the beginning, beside the ones that they must reach.

Three comparisons, because the rules' recipes differ in length; each has backprop and all controls. Run again, it goes
on where it was. Last epoch, not the best one; test accuracy, chosen on validation.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from altprop.bench.cases import label
from altprop.bench.compare import compare
from altprop.bench.stats import INTERVAL_METHOD, final, interval
from altprop.report import leaderboard
from altprop.report.figures import draw
from altprop.terminal import Bars

TASK, SEEDS = "mnist", 3
COLUMNS = ["rule", "variant", "predictor", "net", "seed", "epoch", "samples", "train_seconds", "split", "metric"]
COLUMNS += ["value", "status", "parameters", "operations", "peak_step_bytes", "batch_size", "epochs", "hyperparameters"]
COLUMNS += ["protocol", "source_hash", "started"]


@dataclass(frozen=True)
class Recipe:
    """One comparison, and the least test accuracy of each (rule, predictor) in it, in per cent."""

    name: str
    epochs: int
    goals: dict[tuple[str, str], float]

    @property
    def rules(self) -> list[str]:
        return list(dict.fromkeys(rule for rule, _ in self.goals))


RECIPES = (
    Recipe(
        "ten epochs",
        10,
        {
            ("backprop", ""): 97.9,
            ("signal-propagation", "output"): 97.4,
            ("signal-propagation", "nearest"): 97.4,
            ("direct-feedback-alignment", ""): 97.3,
            ("predictive-coding", ""): 97.4,
        },
    ),
    Recipe("forward-forward", 12, {("forward-forward", "head"): 98.0, ("forward-forward", "energy"): 97.8}),
    Recipe("soft winner-take-all", 3, {("soft-wta", ""): 96.8}),
)


def table(recipe: Recipe, frame: pd.DataFrame) -> str:
    """One Markdown row a contender: its goal, the mean over seeds with its interval, and every seed."""
    lines = ["| contender | goal | test accuracy | interval | each seed | reached |", "|---|---|---|---|---|---|"]
    for (rule, variant, predictor), rows in final(frame).groupby(["rule", "variant", "predictor"], sort=False):
        values = [100 * v for v in rows.sort_values("seed")["value"]]
        mean, low, high = interval(values)
        goal = recipe.goals.get((str(rule), str(predictor))) if not variant else None
        name = label(str(rule), str(variant), str(predictor))
        reached = "" if goal is None else "yes" if mean >= goal else "**no**"
        each = ", ".join(f"{v:.2f}" for v in values)
        lines.append(f"| {name} | {goal or ''} | {mean:.2f} % | {low:.2f} to {high:.2f} | {each} | {reached} |")
    return "\n".join(lines)


def against_frozen(frame: pd.DataFrame) -> str:
    """Soft winner-take-all minus its frozen control, seed by seed."""
    last = final(frame).set_index(["rule", "variant", "seed"])["value"]
    frozen = "frozen on the net of soft-wta"
    gaps = [100 * (last["soft-wta", "", s] - last["soft-wta", frozen, s]) for s in range(SEEDS)]
    each = ", ".join(f"{gap:+.2f}" for gap in gaps)
    verdict = "yes" if min(gaps) >= 0.4 else "**no**"
    return f"Soft WTA minus its frozen control, seed by seed: {each} points (goal: at least +0.40 on each): {verdict}."


HEAD = """# Results on MNIST

Made by `make recipes` (this page too). 50,000 training, 10,000 validation and 10,000 test images; what was chosen was
chosen on validation; below is test accuracy at the last epoch, not the best one, for each of three seeds, one thread.
{interval}. Hyperparameters, points of every run and their times are in each folder's `rows.csv`. What a step
costs, in time, operations and bytes, is in [speed.md](speed.md).
"""


def published(recipe: Recipe, frame: pd.DataFrame, folder: Path) -> str:
    """Write a recipe's rows and figures, and return its section of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / "rows.csv.part"
    frame[COLUMNS].to_csv(beside, index=False)
    beside.replace(folder / "rows.csv")
    pictures = [path for path in draw(frame, folder) if path.suffix == ".png"]
    for path in folder.glob("*.pdf"):
        path.unlink()  # the SVG holds the same drawing
    parts = [f"## {recipe.name.capitalize()}", table(recipe, frame)]
    parts += [against_frozen(frame)] if "soft-wta" in recipe.rules else []
    parts += [f"![{path.stem}]({folder.name}/{path.name})" for path in pictures]
    return "\n\n".join(parts)


def main(output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Run the recipes and write docs/results: this page, rows as CSV, and the figures.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    console = Console()
    sections = [HEAD.format(interval=INTERVAL_METHOD[0].upper() + INTERVAL_METHOD[1:])]
    for recipe in RECIPES:
        with Bars(console) as bars:
            frame = compare(
                TASK,
                recipe.rules,
                seeds=SEEDS,
                epochs=recipe.epochs,
                store=store,
                command="make recipes",
                observer=bars,
            )
        frame = frame[(frame["task"] == TASK) & (frame["epochs"] == recipe.epochs)]
        console.print(leaderboard.table(frame, console.width))
        sections.append(published(recipe, frame, output / recipe.name.replace(" ", "-")))
    beside = output / "README.md.part"
    beside.write_text("\n\n".join(sections) + "\n")
    beside.replace(output / "README.md")


if __name__ == "__main__":
    tyro.cli(main)
