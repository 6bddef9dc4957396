"""`make recipes`: the numbers of docs/results, from the beginning, beside the ones that they must reach.

Every recipe is one comparison (see `Recipe`). Run again, it goes on where it was; several processes may share the
store. Last epoch, not the best one; test accuracy, chosen on validation.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from altprop.bench.compare import carry_out, measured
from altprop.bench.energy_recipes import ENERGY, ENERGY_HEAD
from altprop.bench.feedback_recipes import FEEDBACK, FEEDBACK_HEAD
from altprop.bench.forward_forward_recipes import FORWARD_FORWARD, FORWARD_FORWARD_HEAD
from altprop.bench.hebbian_recipes import HEBBIAN, HEBBIAN_HEAD
from altprop.bench.local_recipes import LOCAL, LOCAL_HEAD
from altprop.bench.publish import write_page
from altprop.bench.recipe import Goal, Lead, Recipe, publish, section, summary
from altprop.bench.signal_propagation_recipes import SIGNAL_PROPAGATION, SIGNAL_PROPAGATION_HEAD
from altprop.bench.stats import INTERVAL_METHOD
from altprop.errors import UsageError
from altprop.report import leaderboard
from altprop.terminal import Bars

HINTON = "Hinton 2022, 4x2000, 60 epochs"
FOUNDATION = (
    Recipe(
        "Ten epochs",
        10,
        {
            ("backprop", ""): Goal(97.9),
            ("signal-propagation", "output"): Goal(97.4),
            ("signal-propagation", "nearest"): Goal(97.4),
            ("direct-feedback-alignment", ""): Goal(97.3),
            ("predictive-coding", ""): Goal(97.4),
        },
    ),
    Recipe(
        "Forward-forward",
        12,
        {
            ("forward-forward", "head"): Goal(98.0, 98.64, HINTON),
            ("forward-forward", "energy"): Goal(97.8),
        },
    ),
    Recipe(
        "Soft winner-take-all",
        3,
        {("soft-wta", ""): Goal(96.8)},
        leads=(Lead("soft-wta", "soft-wta · frozen on the net of soft-wta", 0.4, each=True),),
    ),
)

FOUNDATION_HEAD = """# Results

Made by `make recipes` (this page too). MNIST: 50,000 training, 10,000 validation and 10,000 test images; what was
chosen was chosen on validation; below is test accuracy at the last epoch, not the best one, for each of three seeds,
one thread. The runs (hyperparameters, versions, commands) and their points are in each folder's `runs.csv` and
`rows.csv`. {interval}.

| page | what is on it |
|---|---|
| this one | the rules of the foundation on MNIST |
{pages}
"""
PAGES = {
    "forward_forward_family": "forward-forward whole, and the rules that came from it",
    "forward_forward_ablation": "forward-forward with one thing changed at a time",
    "forward_forward_collaboration": "layer collaboration, block by block, with and without",
    "forward_forward_sleep": "positive and negative phases apart, and what happens without negatives",
    "forward_forward_generation": "digits that a forward-forward net draws, and what they are worth",
    "forward_forward_portraits": "activities, goodness and receptive fields of a trained net",
    "signal_propagation_family": "signal propagation on nets of every kind, and the rules that are its kin",
    "energy_family": "rules that relax to an equilibrium, and their kin",
    "relaxation": "how fast states relax, how far, and how near to backpropagation the updates are",
    "energy_drawings": "digits that a net of both directions draws and completes",
    "local_losses_family": "losses of every block's own, and the controls of what they save",
    "block_sizes": "accuracy and memory from one block a module to the whole net",
    "costs": "accuracy, seconds, bytes and training-only parameters of local rules beside backpropagation",
    "feedback_family": "rules whose error comes back through other weights than the net's",
    "converted": "a user's own residual net, converted to feedback rules by one line",
    "feedback_angles": "how feedback and forward weights turn towards each other",
    "hebbian_family": "rules that learn without an error: components, competition, reward",
    "hebbian_portraits": "what units that learn from correlations look at, who wins, and who never does",
    "fast_hebb": "Hebbian updates by reordered products, against a tensor of all patches",
    "target_trees": "how few comparisons find the nearest of many class targets",
    "dead_neurons": "how many spiking units never fire, by what they learn from",
    "streaming": "the data once, one sample at a time, each answered before it is learned from",
    "black_boxes": "rules on hardware that has no derivative, against noise, rounding and distortion",
    "speed": "what a step costs, in time, operations and bytes",
}


@dataclass(frozen=True)
class Page:
    """A page of results: its file, what stands at its top, and its recipes."""

    file: str
    head: str
    recipes: tuple[Recipe, ...]


BOOK = (
    Page("README", FOUNDATION_HEAD, FOUNDATION),
    Page("forward_forward_family", FORWARD_FORWARD_HEAD, FORWARD_FORWARD),
    Page("signal_propagation_family", SIGNAL_PROPAGATION_HEAD, SIGNAL_PROPAGATION),
    Page("energy_family", ENERGY_HEAD, ENERGY),
    Page("feedback_family", FEEDBACK_HEAD, FEEDBACK),
    Page("local_losses_family", LOCAL_HEAD, LOCAL),
    Page("hebbian_family", HEBBIAN_HEAD, HEBBIAN),
)


def chosen(only: tuple[str, ...]) -> list[Recipe]:
    """The recipes of these names (or folders), all if none is given; raises UsageError with the nearest name."""
    every = [recipe for page in BOOK for recipe in page.recipes]
    known = {name: recipe for recipe in every for name in (recipe.name, recipe.folder)}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(r.folder for r in every)}"
            raise UsageError(f"--only {name}: there is no such recipe; {hint}")
    return [recipe for recipe in every if not only or {recipe.name, recipe.folder} & set(only)]


def write(page: Page, output: Path) -> None:
    """Write a page from what is published in the folders of its recipes, if anything is."""
    pages = [f"| [{name}]({name}.md) | {what} |" for name, what in PAGES.items() if (output / f"{name}.md").exists()]
    method = INTERVAL_METHOD[0].upper() + INTERVAL_METHOD[1:]
    parts = [summary(page.recipes, output), *(section(recipe, output) for recipe in page.recipes)]
    if any(parts):
        head = page.head.format(interval=method, pages="\n".join(pages)).rstrip()
        write_page(output / f"{page.file}.md", "\n\n".join([head, *(part for part in parts if part)]))


def main(only: tuple[str, ...] = (), output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Run the recipes and write docs/results: the pages, rows as CSV, and the figures.

    Args:
        only: names of recipes, where not all of them shall run; the pages keep what is published of the others.
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    console = Console()
    for recipe in chosen(only):
        console.print(recipe.name, style="bold")
        plans = recipe.plans()
        with Bars(console) as bars:
            frame = measured(plans, carry_out(plans, store, bars), store)
        console.print(leaderboard.table(frame, console.width))
        publish(recipe, frame, output)
        for page in BOOK:
            write(page, output)


if __name__ == "__main__":
    tyro.cli(main)
