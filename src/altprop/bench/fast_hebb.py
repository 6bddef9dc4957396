"""`python -m altprop.bench.fast_hebb`: Hebbian updates by matrix products, against those written sample by sample.

The naive form is the papers' formula for each patch, stacked (patches, units, inputs), and then its mean;
the fast form is what the rules of this package run. One thread, CPU time; both take turns in every round.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from altprop.analysis.trace import Trace
from altprop.bench import meter
from altprop.bench.publish import markdown, write_page
from altprop.bench.speed import quartiles
from altprop.bench.train import Process
from altprop.report.fast_hebb import draw
from altprop.rules.hebbian.competition import responsibilities
from altprop.rules.hebbian.patches import (
    Layer,
    as_rows,
    count,
    fan_in,
    gram,
    means,
    mixed,
    patches,
    product,
    scaled,
)

FOLDER, FILE = "fast_hebb", "fast_hebb.md"
SIZES = ((64, 96, 75), (784, 96, 75), (784, 128, 75), (784, 128, 288), (256, 256, 784))
"""Patches, units, inputs."""
IMAGES = (8, 96, 3, 28, 5)
"""Images, units, channels, height and width, kernel."""
GOAL = (784, 128, 75)
SHARP = 30.0
"""A temperature at which a fifth of all responsibilities is subnormal."""

X = Float[Tensor, "patches inputs"]
Y = Float[Tensor, "patches units"]
W = Float[Tensor, "units inputs"]
Batch = Float[Tensor, "batch ..."]
Units = Float[Tensor, "batch units ..."]
Weight = Float[Tensor, "units ..."]
Update = Callable[[Layer, Batch, Units], Weight]
Made = tuple[Layer, Tensor, Tensor]
Row = dict[str, str | int | float]


def by_patches(naive: Callable[[W, X, Y], W]) -> Update:
    """A naive form, which sees one row a patch."""

    @wraps(naive)
    def update(layer: Layer, x: Batch, y: Units) -> Weight:
        return naive(layer.weight.flatten(1), patches(layer, x), as_rows(y)).view_as(layer.weight)

    return update


def sanger(layer: Layer, x: Batch, y: Units) -> Weight:
    return product(layer, y, x).sub_(mixed(gram(y, y).tril_(), layer.weight))


@by_patches
def naive_sanger(w: W, x: X, y: Y) -> W:
    return (y.unsqueeze(2) * x.unsqueeze(1) - squares(y, y).tril() @ w).mean(0)


@by_patches
def summed_sanger(w: W, x: X, y: Y) -> W:
    """The best of the naive forms: what units before each one explain, by a running sum."""
    explained = (y.unsqueeze(2) * w).cumsum(1)
    return (y.unsqueeze(2) * (x.unsqueeze(1) - explained)).mean(0)


def subspace(layer: Layer, x: Batch, y: Units) -> Weight:
    return product(layer, y, x).sub_(mixed(gram(y, y), layer.weight))


@by_patches
def naive_subspace(w: W, x: X, y: Y) -> W:
    return (y.unsqueeze(2) * x.unsqueeze(1) - squares(y, y) @ w).mean(0)


def ica(layer: Layer, x: Batch, y: Units) -> Weight:
    return layer.weight - mixed(gram(y.tanh(), y), layer.weight)


@by_patches
def naive_ica(w: W, x: X, y: Y) -> W:
    return (w - squares(y.tanh(), y) @ w).mean(0)


def squares(y: Y, z: Y) -> Float[Tensor, "patches units units"]:
    """Each patch's own y z^T."""
    return y.unsqueeze(2) * z.unsqueeze(1)


def winners(layer: Layer, x: Batch, y: Units) -> Weight:
    """Soft winner-take-all: dW = <r (x - w)>."""
    return drawn_to(layer, x, responsibilities(y, 1.0))


@by_patches
def naive_winners(w: W, x: X, y: Y) -> W:
    return (responsibilities(y, 1.0).unsqueeze(2) * (x.unsqueeze(1) - w)).mean(0)


def flushed(layer: Layer, x: Batch, y: Units) -> Weight:
    """A sharp competition, in which no responsibility is subnormal."""
    return drawn_to(layer, x, responsibilities(y, SHARP))


def unflushed(layer: Layer, x: Batch, y: Units) -> Weight:
    """The same products, with subnormal numbers in them."""
    return drawn_to(layer, x, (SHARP * y).softmax(1))


def drawn_to(layer: Layer, x: Batch, r: Units) -> Weight:
    return product(layer, r, x).sub_(scaled(means(r), layer.weight))


UPDATES: Mapping[str, tuple[Update, Update]] = {
    "Sanger": (sanger, naive_sanger),
    "Sanger, running sums": (sanger, summed_sanger),
    "subspace": (subspace, naive_subspace),
    "natural gradient ICA": (ica, naive_ica),
    "soft winner-take-all": (winners, naive_winners),
}
"""Each fast form, and a naive one."""
FLUSHED = "winners at a sharp competition; naive: subnormals left"
CONVOLVED = ("Sanger", "soft winner-take-all")


def drawn(patches: int, units: int, inputs: int) -> Made:
    """A linear layer, its input, and what it makes of it."""
    return of(nn.Linear(inputs, units, bias=False), patches, inputs)


def convolved(images: int, units: int, channels: int, size: int, kernel: int) -> Made:
    """A convolution, its input, and what it makes of it."""
    return of(nn.Conv2d(channels, units, kernel, bias=False), images, channels, size, size)


def of(layer: Layer, *shape: int) -> Made:
    draw_ = torch.Generator().manual_seed(0)
    layer.requires_grad_(False).weight.copy_(torch.randn(layer.weight.shape, generator=draw_) / fan_in(layer) ** 0.5)
    x = torch.randn(*shape, generator=draw_)
    return layer, x, layer(x)


def subjects() -> Iterator[tuple[str, tuple[Update, Update], Made]]:
    """What is measured: its name, the fast and the naive form, and what they work on."""
    for size in SIZES:
        yield from ((name, forms, drawn(*size)) for name, forms in UPDATES.items())
    yield from ((f"{name}, convolution", UPDATES[name], convolved(*IMAGES)) for name in CONVOLVED)
    yield FLUSHED, (flushed, unflushed), drawn(*SIZES[-1])


def seconds(update: Update, layer: Layer, x: Batch, y: Units, least: float = 0.02) -> float:
    """Of the processor, for one update; repeated until that takes `least`."""
    repeats, start = 0, time.process_time()
    while time.process_time() - start < least or not repeats:
        update(layer, x, y)
        repeats += 1
    return (time.process_time() - start) / repeats


def peak(update: Update, layer: Layer, x: Batch, y: Units) -> int:
    """The most bytes alive at once in one update, its input left out."""
    with Trace({}) as trace:
        update(layer, x, y)
    return trace.peak_bytes


@torch.no_grad()
def measure(rounds: int) -> pd.DataFrame:
    """One row an update and size: milliseconds (medians), the quartiles of the rounds' ratios, peak bytes, and how far
    apart the two forms come."""
    measured = [(subject, list[list[float]]()) for subject in subjects()]
    with Process().applied(0):
        for _ in range(rounds):  # outermost: what an update costs depends on what was done to the memory before
            for (_, forms, made), times in measured:
                times.append([seconds(form, *made) for form in forms])
        return pd.DataFrame(row(*subject, times) for subject, times in measured)


def row(name: str, forms: tuple[Update, Update], made: Made, times: list[list[float]]) -> Row:
    fast, naive = forms
    one, other = fast(*made), naive(*made)
    low, ratio, high = quartiles([slow for _, slow in times], [quick for quick, _ in times])
    layer, _, y = made
    return {
        "update": name,
        "patches": count(y),
        "units": len(layer.weight),
        "inputs": fan_in(layer),
        "fast_ms": 1000 * statistics.median(quick for quick, _ in times),
        "naive_ms": 1000 * statistics.median(slow for _, slow in times),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "fast_bytes": peak(fast, *made),
        "naive_bytes": peak(naive, *made),
        "apart": float((one - other).abs().max() / other.abs().max()),
    }


def write(output: Path) -> None:
    """The page and its figure, from the rows."""
    table = pd.read_csv(output / FOLDER / "updates.csv")
    draw(table[table["update"].isin(UPDATES)], output / FOLDER)
    rows = [
        [row["update"], f"{row['patches']} / {row['units']} / {row['inputs']}", f"{row['fast_ms']:.2f}",
         f"{row['naive_ms']:.1f}", f"{row['ratio']:.0f} ({row['ratio_low']:.0f} to {row['ratio_high']:.0f})",
         f"{row['fast_bytes'] / 1e6:.2f}",
         f"{row['naive_bytes'] / 1e6:.0f}", f"{row['apart']:.0e}"]
        for row in table.to_dict("records")
    ]  # fmt: skip
    rows_, units, inputs = GOAL
    goal = table.query(f"patches == {rows_} and units == {units} and inputs == {inputs}").set_index("update")["ratio"]
    one = table.set_index("update")["ratio"]
    least = min(goal[["Sanger", "subspace"]])
    head = ["update", "patches / units / inputs", "ms", "ms, naive", "naive / fast", "MB", "MB, naive", "apart"]
    write_page(
        output / FILE,
        f"""# Hebbian updates by matrix products

Made by `python -m altprop.bench.fast_hebb` (this page too). The naive form is the papers' formula for each patch, for
Sanger's rule y x^T - tril(y y^T) W, stacked (patches, units, inputs), and its mean; "running sums" is the best of its
kind, which sums up what the units before each one explain. The fast form (FastHebb, Lagani et al. 2022,
[arXiv 2207.03172](https://arxiv.org/abs/2207.03172)) takes sums over patches first, on the units' Gram matrix, and
never makes that tensor. Float32, one thread, CPU time, all in turn in every round; ratios are medians and quartiles of
the rounds (naive forms spend much of their time on getting memory from the system, which varies), bytes the peak of
one update without its input, and "apart" is the largest difference over the largest change.
Activities are given: W x is not counted. A convolution's fast form is PyTorch's own gradient of a convolution
(`conv2d_weight`), its naive form cuts out the patches first.

Goal for the PCA rules with {rows_} patches, {units} units and {inputs} inputs: 50 times faster
({"yes" if least >= 50 else "**no**"}: at least {least:.0f} times; against running sums
{goal["Sanger, running sums"]:.0f} times). In a sharp competition a share of all responsibilities is subnormal, and some
processors are slow with such numbers; the rules clamp them at the cube root of the smallest normal one. On this
processor ({meter.machine()["processor"]}) an update is {one[FLUSHED]:.1f} times as fast for it.

{markdown(head, rows)}

![time and memory of the two forms]({FOLDER}/updates.png)
""",
    )


@dataclass
class Options:
    """Measure both forms of each update, and write the rows, the figure and the page."""

    output: Path = Path("docs/results")
    rounds: int = 7
    measure: Annotated[bool, tyro.conf.arg(help="off: the page from the rows that are there")] = True


def main(options: Options) -> None:
    if options.measure:
        folder = options.output / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        measure(options.rounds).to_csv(folder / "updates.csv", index=False, float_format="%.5g")
    write(options.output)


if __name__ == "__main__":
    main(tyro.cli(Options))
