"""Black boxes: who trains a net on hardware that nobody can look into, and how well.

Mortal computation (Hinton 2022, arXiv 2212.13345, section 8): weights that are of use only to the one piece of analogue
hardware on which they were learned, since nobody knows, or can differentiate, what it computes. Two studies: accuracy
against the strength of the box, for rules that take no derivative through it and for backprop with one that stands in;
and accuracy and the largest stable rate against the number of weights.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from altprop.bench import black_box_sizes as sizes
from altprop.bench import black_box_strengths as strengths
from altprop.bench.black_box_methods import Method
from altprop.bench.black_box_sizes import Sizes
from altprop.bench.black_box_strengths import Strengths
from altprop.bench.compare import Observer
from altprop.bench.publish import markdown, write_page, write_rows
from altprop.report import boxing
from altprop.report.replace import replaced
from altprop.terminal import Bars

TITLES = {
    "noisy": "normal noise on every product, as a share of its size",
    "quantised": "activities rounded to multiples of this",
    "distorted": "every unit distorted in its own way",
    "distorted, moved": "the same, the weights moved to another copy",
}
HEAD = """# Black boxes

Made by `python -m altprop.bench.black_boxes` (this page too). After Hinton's mortal computation (2022, arXiv
2212.13345, section 8): a net on hardware that computes something nobody knows, or can differentiate, and no other copy
of which computes the same. Rules that take no derivative through a block train it as it is. Backprop needs one that
stands in: that of the identity (straight through), or of a model of the box that is fitted while it trains, here a
cubic for each unit by ridge regression on the last 256 samples. Test accuracy at the last epoch; mean of {study.seeds}
seeds, each with a net and a copy of the hardware of its own.

## Strength

{study.task}, {study.depth} hidden blocks of {study.width} ReLUs (rules without an output block have one more),
{study.epochs} epochs. Rules are as they are tuned for the plain net, their rates times the one of {multiples} that is
best on validation with the first seed at strength 0 ({best}); nothing is tuned for a box.

- Noise on every product: w x becomes w x (1 + strength e), e normal, new for every product and sample, in all
  layers (predictions draw anew for every sample of a batch, and alike for every batch).
- Rounding: behind each hidden block, to a multiple of the strength. The root mean square of the activities of the
  untrained, plain net is {activity:.2f}.
- Distortion: behind each hidden block, for each unit another gain, offset and wave, all of the strength's size, drawn
  once for each copy of the hardware. Moved: the same weights predict on another copy than the one they learned on.

Mono-forward's classifiers and forward-forward's readout stand outside of the box, so that noise does not reach what is
read. A model that is fitted to noise without a mean is the layer itself: that would be the straight-through estimate
again. Forward-forward multiplies a sample once for all its labels, and does not take a layer whose products are noisy.
In per cent, with half the width of the Student t 95 % interval:
"""
SIZES = """## Number of weights

Distortion of strength {study.strength:g}, two hidden blocks of equal width, {study.epochs} epochs of batches of 32,
plain gradient descent at a constant rate; perturbations in one direction a step. Rates are 10^(k/2). The largest stable
one is the largest at which a run does not diverge and its mean training loss in the last epoch is below that of
guessing, the logarithm of the number of classes. Accuracy is that at the rate which is best on validation with the
first seed, among the largest stable one and {study.below} below it.
"""


def strengths_page(study: Strengths, table: pd.DataFrame, best: Mapping[Method, float]) -> str:
    words = ", ".join(f"{m:g}" for m in study.multiples)
    rates = ", ".join(f"{method.name} {multiple:g}" for method, multiple in best.items())
    parts = [HEAD.format(study=study, multiples=words, best=rates, activity=strengths.activity(study)).rstrip()]
    for panel, rows in table.groupby("panel", sort=False):
        body = [
            [str(method), *(cell(row) for row in line.to_dict("records"))]
            for method, line in rows.groupby("method", sort=False)
        ]
        head = [str(panel), *(f"{s:g}" for s in sorted(rows["strength"].unique()))]
        parts.append(markdown(head, body))
    return "\n\n".join([*parts, "![accuracy against strength](black-boxes/strengths.png)"])


def sizes_page(study: Sizes, table: pd.DataFrame) -> str:
    head = SIZES.format(study=study).rstrip()
    columns = ["method", *(f"{n:,} weights" for n in study.weights)]
    parts = [head]
    for words, write in (("Largest stable rate of every seed:", rates), ("Test accuracy, in per cent:", cell)):
        body = [
            [str(method), *(write(row) for row in line.to_dict("records"))]
            for method, line in table.groupby("method", sort=False)
        ]
        parts += [words, markdown(columns, body)]
    return "\n\n".join([*parts, "![largest stable rate and accuracy](black-boxes/sizes.png)"])


def cell(row: Mapping[object, object]) -> str:
    """A mean, and half the width of its interval."""
    mean, high = float(str(row["mean"])), float(str(row["high"]))
    if math.isnan(mean):
        return "diverged"
    return f"{mean:.1f}" + ("" if math.isnan(high) else f" ± {high - mean:.1f}")


def rates(row: Mapping[object, object]) -> str:
    each = row["rates"]
    assert isinstance(each, tuple)
    return ", ".join("none" if math.isnan(rate) else f"{rate:.2g}" for rate in each)


def run(first: Strengths, second: Sizes, output: Path, store: Path, observer: Observer | None = None) -> None:
    """Both studies, published with their page."""
    folder = output / "black-boxes"
    frame, best = strengths.runs(first, store, observer)
    write_rows(frame, folder)
    table = strengths.by_strength(first, frame, best)
    boxing.draw_strengths(table, {p: TITLES.get(p, p) for p in table["panel"].unique()}, folder)
    rows = sizes.runs(second, store, observer)
    with replaced(folder / "sizes.csv") as path:
        rows.to_csv(path, index=False, float_format="%.7g")
    sized = sizes.by_size(rows)
    boxing.draw_sizes(sized, folder)
    write_page(output / "black_boxes.md", strengths_page(first, table, best) + "\n\n" + sizes_page(second, sized))


def main(output: Path = Path("docs/results"), store: Path = Path("recipes.db")) -> None:
    """Run both studies and write their page.

    Args:
        output: the folder for what is published.
        store: the runs; delete it to measure anew.
    """
    with Bars(Console()) as bars:
        run(Strengths(), Sizes(), output, store, bars)


if __name__ == "__main__":
    tyro.cli(main)
