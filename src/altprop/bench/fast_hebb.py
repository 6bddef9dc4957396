"""`python -m altprop.bench.fast_hebb`: Hebbian updates by matrix products, against those written sample by sample.

The naive form is the papers' formula for each patch, stacked (patches, units, inputs), and then its mean;
the fast form is what the rules of this package run. One thread, CPU time; both take turns in every round.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from altprop.analysis.trace import Trace
from altprop.bench.publish import markdown, write_page
from altprop.report.fast_hebb import draw
from altprop.rules.hebbian.patches import gram, mixed, product, scaled

FOLDER, FILE = "fast_hebb", "fast_hebb.md"
SIZES = ((64, 96, 75), (784, 96, 75), (784, 128, 75), (784, 128, 288), (256, 256, 784))
"""Patches, units, inputs."""
GOAL = (784, 128, 75)

X = Float[Tensor, "patches inputs"]
Y = Float[Tensor, "patches units"]
W = Float[Tensor, "units inputs"]
Update = Callable[[nn.Linear, X, Y], W]
Row = dict[str, str | int | float]


def sanger(layer: nn.Linear, x: X, y: Y) -> W:
    return product(layer, y, x).sub_(mixed(gram(y, y).tril_(), layer.weight))


def naive_sanger(layer: nn.Linear, x: X, y: Y) -> W:
    return (y.unsqueeze(2) * x.unsqueeze(1) - squares(y, y).tril() @ layer.weight).mean(0)


def summed_sanger(layer: nn.Linear, x: X, y: Y) -> W:
    """The best of the naive forms: what units before each one explain, by a running sum."""
    explained = (y.unsqueeze(2) * layer.weight).cumsum(1)
    return (y.unsqueeze(2) * (x.unsqueeze(1) - explained)).mean(0)


def subspace(layer: nn.Linear, x: X, y: Y) -> W:
    return product(layer, y, x).sub_(mixed(gram(y, y), layer.weight))


def naive_subspace(layer: nn.Linear, x: X, y: Y) -> W:
    return (y.unsqueeze(2) * x.unsqueeze(1) - squares(y, y) @ layer.weight).mean(0)


def ica(layer: nn.Linear, x: X, y: Y) -> W:
    return layer.weight - mixed(gram(y.tanh(), y), layer.weight)


def naive_ica(layer: nn.Linear, x: X, y: Y) -> W:
    return (layer.weight - squares(y.tanh(), y) @ layer.weight).mean(0)


def squares(y: Y, z: Y) -> Float[Tensor, "patches units units"]:
    """Each patch's own y z^T."""
    return y.unsqueeze(2) * z.unsqueeze(1)


def winners(layer: nn.Linear, x: X, y: Y) -> W:
    """Soft winner-take-all: dW = <r (x - w)>."""
    r = responsibilities(y)
    return product(layer, r, x).sub_(scaled(r.mean(0), layer.weight))


def naive_winners(layer: nn.Linear, x: X, y: Y) -> W:
    return (responsibilities(y).unsqueeze(2) * (x.unsqueeze(1) - layer.weight)).mean(0)


def responsibilities(y: Y) -> Y:
    """None of them subnormal."""
    logits = y - y.amax(1, keepdim=True)
    return logits.clamp_min_(-29.0).softmax(1)


UPDATES: Mapping[str, tuple[Update, Update]] = {
    "Sanger": (sanger, naive_sanger),
    "Sanger, running sums": (sanger, summed_sanger),
    "subspace": (subspace, naive_subspace),
    "natural gradient ICA": (ica, naive_ica),
    "soft winner-take-all": (winners, naive_winners),
}


def drawn(patches: int, units: int, inputs: int) -> tuple[nn.Linear, X, Y]:
    """A layer, its input, and what it makes of it."""
    draw_ = torch.Generator().manual_seed(0)
    layer = nn.Linear(inputs, units, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.randn(units, inputs, generator=draw_) / inputs**0.5)
    x = torch.randn(patches, inputs, generator=draw_)
    return layer, x, layer(x)


def seconds(update: Update, layer: nn.Linear, x: X, y: Y, least: float = 0.02) -> float:
    """Of the processor, for one update; repeated until that takes `least`."""
    repeats, start = 0, time.process_time()
    while time.process_time() - start < least or not repeats:
        update(layer, x, y)
        repeats += 1
    return (time.process_time() - start) / repeats


def peak(update: Update, layer: nn.Linear, x: X, y: Y) -> int:
    """The most bytes alive at once in one update, its input left out."""
    with Trace({}) as trace:
        update(layer, x, y)
    return trace.peak_bytes


@torch.no_grad()
def measure(rounds: int) -> pd.DataFrame:
    """One row an update and size: milliseconds (medians), the quartiles of the rounds' ratios, peak bytes, and how far
    apart the two forms come."""
    torch.set_num_threads(1)
    subjects = {(name, size): drawn(*size) for size in SIZES for name in UPDATES}
    times: dict[tuple[str, tuple[int, int, int]], list[list[float]]] = {subject: [] for subject in subjects}
    for _ in range(rounds):  # outermost: what an update costs depends on what was done to the memory before
        for (name, size), made in subjects.items():
            times[name, size].append([seconds(form, *made) for form in UPDATES[name]])
    return pd.DataFrame(row(name, size, made, times[name, size]) for (name, size), made in subjects.items())


def row(name: str, size: tuple[int, int, int], made: tuple[nn.Linear, X, Y], times: list[list[float]]) -> Row:
    fast, naive = UPDATES[name]
    one, other = fast(*made), naive(*made)
    low, ratio, high = np.quantile([slow / quick for quick, slow in times], (0.25, 0.5, 0.75))
    return {
        "update": name,
        **dict(zip(("patches", "units", "inputs"), size, strict=True)),
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
    draw(table, output / FOLDER)
    rows = [
        [row["update"], f"{row['patches']} / {row['units']} / {row['inputs']}", f"{row['fast_ms']:.2f}",
         f"{row['naive_ms']:.1f}", f"{row['ratio']:.0f} ({row['ratio_low']:.0f} to {row['ratio_high']:.0f})",
         f"{row['fast_bytes'] / 1e6:.2f}",
         f"{row['naive_bytes'] / 1e6:.0f}", f"{row['apart']:.0e}"]
        for row in table.to_dict("records")
    ]  # fmt: skip
    patches, units, inputs = GOAL
    goal = table.query(f"patches == {patches} and units == {units} and inputs == {inputs}").set_index("update")["ratio"]
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
Activities are given: W x is not counted. Goal for the PCA rules with {patches} patches, {units} units and {inputs}
inputs: 50 times faster ({"yes" if least >= 50 else "**no**"}: at least {least:.0f} times;
against running sums {goal["Sanger, running sums"]:.0f} times).

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
