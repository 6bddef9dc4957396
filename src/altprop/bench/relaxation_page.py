"""The page of the study of relaxation, from the CSV files of its parts."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from altprop.bench.publish import markdown, write_page
from altprop.bench.stats import interval
from altprop.report import relaxing

FOLDER, FILE = "relaxation", "relaxation.md"
HEAD = """# Relaxation

Made by `python -m altprop.bench.relaxation` (this page too; `--parts sweeps` measures one part anew). MNIST, a net of
784-128-128-128-10, batches of 128, one thread; where it is trained, relu and three epochs, test accuracy at the last.
Predictive coding from the feed-forward start with a small state rate is backpropagation in disguise: the same direction
in every block, hidden blocks scaled down by up to thousands, which Adam makes good. So cosines come with ratios of
length and with the distance to equilibrium.
"""


def write(output: Path) -> None:
    """The page with a section and, where there is one, a figure for each part that has been measured."""
    folder = output / FOLDER
    sections = [HEAD]
    for part, section in SECTIONS.items():
        if (folder / f"{part}.csv").exists():
            sections.append(section(pd.read_csv(folder / f"{part}.csv"), folder))
    write_page(output / FILE, "\n\n".join(text.rstrip() for text in sections))


def of_speed(table: pd.DataFrame, folder: Path) -> str:
    rows = [
        [row["act"], row["way"], f"{row['samples_per_cpu_second']:,}", f"{row['ratio']:.2f}"]
        for row in table.to_dict("records")
    ]
    goal = table[(table["act"] == "relu") & table["way"].str.startswith("states (")].iloc[0]
    reached = goal["samples_per_cpu_second"] >= 30_000 and goal["ratio"] >= 2.5
    return f"""## Speed

Gradients only, eight sweeps, cross-entropy; median over rounds in which all ways take turns. Goal for the states,
with relu: 30,000 samples a CPU second, and 2.5 times autograd of the whole energy: {"yes" if reached else "**no**"}.

{markdown(["activation", "way", "samples / CPU second", "times the whole energy's"], rows)}
"""


def of_sweeps(table: pd.DataFrame, folder: Path) -> str:
    relaxing.draw_sweeps(table, folder)
    rows = []
    for (start, sweeps), group in table.groupby(["start", "sweeps"], sort=True):
        mean, low, high = interval(100 * group["test"])
        means = group.mean(numeric_only=True)
        rows.append([str(start), str(sweeps), f"{mean:.2f} %", f"{low:.2f} to {high:.2f}", f"{means['passes']:.1f}",
                     f"{group['cpu_seconds'].median():.0f}", f"{means['residual']:.2g}"])  # fmt: skip
    return f"""## Sweeps

Passes: operations of a step over those of a forward pass. Residual: slope of the energy over the size of the errors,
on a training batch after training. With fewer than three sweeps the feed-forward start leaves the first blocks as they
were drawn. State rate 0.1, halved for a sample whose energy would rise.

{markdown(["start", "sweeps", "test", "interval", "passes", "CPU seconds", "residual"], rows)}

![accuracy against sweeps]({FOLDER}/sweeps.png)
"""


def of_knob(table: pd.DataFrame, folder: Path) -> str:
    relaxing.draw_knob(table, folder)
    rows = []
    for (output, beta), group in table.groupby(["output", "beta"], sort=True):
        mean, low, high = interval(100 * group.drop_duplicates("seed")["test"])
        by = group.groupby("block")[["cosine", "ratio"]].mean()
        rows.append([str(output), f"{beta:g}" if beta else "backprop", f"{mean:.2f} %", f"{low:.2f} to {high:.2f}",
                     f"{group['rate'].iloc[0]:g}", cells(by["cosine"]), cells(by["ratio"]),
                     "" if group["residual"].isna().all() else f"{group['residual'].mean():.2g}"])  # fmt: skip
    return f"""## From backpropagation to the full equilibrium

E = 1/2 sum ||x_l - mu_l||^2 + beta C, 24 sweeps from the output down at a state rate of 0.5; gradients are divided by
beta. Of settled states they come to backpropagation's as beta falls (beta 0: `fixed-prediction`, which is equal to it);
beta = 1 is predictive coding. The residual says how far from settled they are: on trained nets these sweeps do not take
them all the way, so the smallest beta is not backpropagation here. The weights' rate is chosen for each beta on
validation with the first seed. Cosine and ratio of lengths to backpropagation's gradient on a training batch after
training, from the first block to the output block, mean of seeds.

{markdown(["cost", "beta", "test", "interval", "rate", "cosine by block", "ratio by block", "residual"], rows)}

![accuracy, cosine and ratio against beta]({FOLDER}/knob.png)
"""


def of_alignment(table: pd.DataFrame, folder: Path) -> str:
    rows = []
    for (rule, moment), group in table.groupby(["rule", "moment"], sort=False):
        residual = group["residual"].iloc[0]
        rows.append([str(rule), str(moment), cells(group["cosine"]), cells(group["ratio"]),
                     "" if pd.isna(residual) else f"{residual:.2g}"])  # fmt: skip
    return f"""## Each rule beside backpropagation

The rules with the settings of their contenders on this net, on one training batch, when fresh and after three epochs
of their own training: cosine and ratio of lengths to backpropagation's gradient of the rule's cost, from the first
block to the output block; for the last four rules, which predict by settling, to the gradient of the settled states'
squared error. Updates of one step are summed where there are several. (What Adam or weight decay make of them comes
after. Residuals are each rule's own measure: see its page.)

{markdown(["rule", "when", "cosine by block", "ratio by block", "residual"], rows)}
"""


def cells(values: pd.Series) -> str:
    """A number a block."""
    return ", ".join("0" if pd.isna(value) else f"{value:.3g}" for value in values)


SECTIONS: Mapping[str, Callable[[pd.DataFrame, Path], str]] = {
    "speed": of_speed,
    "sweeps": of_sweeps,
    "knob": of_knob,
    "alignment": of_alignment,
}
