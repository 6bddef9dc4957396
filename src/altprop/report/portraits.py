"""Figures of what a forward-forward net does: its activities, its goodness, and what its first units look at."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from altprop.report.figures import LOOK, save

ACTIVE, SIGNED, GREY = "Blues", "RdBu_r", "Greys"
POSITIVE, NEGATIVE = "#0a78c2", "#d3500c"
ENDINGS = ("png", "svg")


def draw_activities(
    image: Float[Tensor, "channels height width"],
    labels: tuple[str, str],
    activities: Mapping[int, Float[Tensor, "2 units"]],
    goodness: Mapping[int, Float[Tensor, " 2"]],
    thresholds: Mapping[int, float],
    folder: Path,
) -> list[Path]:
    """`activities.png` and `.svg`: every block's units on one image with the right label, a wrong one, and the
    difference. All mappings go from the block's place; labels: the right one and the wrong one."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(2.1 + 2.3 * len(activities), 6.4), layout="constrained")
        grid = figure.subplots(3, 1 + len(activities), width_ratios=[0.7, *[1] * len(activities)])
        figure.suptitle("The same image with a right and a wrong label", x=0.01, ha="left", weight="bold", fontsize=11)
        for row, words in enumerate((f"right label: {labels[0]}", f"wrong label: {labels[1]}")):
            _picture(grid[row, 0], _shown(image), GREY, 0.0, 1.0)
            grid[row, 0].set_title(words, fontsize=9, pad=4)
        grid[2, 0].set_axis_off()
        grid[2, 0].text(0.5, 0.5, "right − wrong", ha="center", va="center", fontsize=9.5, weight="bold")
        for column, (place, h) in enumerate(activities.items(), 1):
            top = float(h.abs().max()) or 1.0
            low = -top if float(h.min()) < 0 else 0.0
            for row in range(2):
                _picture(grid[row, column], square(h[row]), ACTIVE if low == 0 else SIGNED, low, top)
                words = f"goodness {float(goodness[place][row]):,.0f} (threshold {thresholds[place]:,.0f})"
                grid[row, column].set_title(f"block {column}\n{words}" if row == 0 else words, fontsize=8.5, pad=4)
            _picture(grid[2, column], square(h[0] - h[1]), SIGNED, -top, top)
        return save(figure, folder, "activities", ENDINGS)


def draw_goodness(
    positives: Mapping[int, Float[Tensor, " samples"]],
    negatives: Mapping[int, Float[Tensor, " samples"]],
    thresholds: Mapping[int, float],
    folder: Path,
) -> list[Path]:
    """`goodness.png` and `.svg`: by block, how goodness is distributed over images with the right label and with
    wrong ones, and the threshold. All mappings go from the block's place."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(1.2 + 2.6 * len(positives), 3.2), layout="constrained")
        figure.suptitle("Goodness of positives and negatives", x=0.01, ha="left", weight="bold", fontsize=11)
        panels = figure.subplots(1, len(positives), squeeze=False)[0]
        for number, (axes, place) in enumerate(zip(panels, positives, strict=True), 1):
            both = torch.cat([positives[place], negatives[place]])
            edges = np.linspace(float(both.min()), float(both.quantile(0.995)), 60)
            for values, colour, words in (
                (positives[place], POSITIVE, "right label"),
                (negatives[place], NEGATIVE, "wrong label"),
            ):
                axes.hist(values.numpy(), edges, color=colour, alpha=0.45, label=words)
                axes.hist(values.numpy(), edges, color=colour, histtype="step", linewidth=1.1)
            axes.axvline(thresholds[place], color="#3a4048", linewidth=1.2, linestyle="--")
            right = float((positives[place] > thresholds[place]).double().mean())
            wrong = float((negatives[place] > thresholds[place]).double().mean())
            axes.set_title(
                f"block {number}: above the threshold\n{right:.0%} of right, {wrong:.0%} of wrong", fontsize=9
            )
            axes.set_xlabel("goodness")
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        panels[0].plot([], [], color="#3a4048", linewidth=1.2, linestyle="--", label="threshold")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper right", frameon=False, fontsize=8.5, ncols=3)
        return save(figure, folder, "goodness", ENDINGS)


def draw_fields(weights: Float[Tensor, "units height width"], words: str, folder: Path) -> list[Path]:
    """`fields.png` and `.svg`: the weights of some units of the first block as images, red above zero, blue below."""
    columns = math.ceil(math.sqrt(1.6 * len(weights)))
    rows = math.ceil(len(weights) / columns)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(7.6, 0.5 + 7.6 * rows / columns), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        figure.suptitle(words, x=0.01, ha="left", weight="bold", fontsize=11)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(weights) :]:
            axes.set_axis_off()
        for axes, field in zip(panels, weights, strict=False):
            top = float(field.abs().quantile(0.995)) or 1.0
            _picture(axes, field, SIGNED, -top, top)
        return save(figure, folder, "fields", ENDINGS)


def draw_images(
    images: Sequence[Float[Tensor, "channels height width"]], words: Sequence[str], folder: Path
) -> list[Path]:
    """`beliefs.png` and `.svg`: what the net believes each class to look like, an image a class."""
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(0.9 * len(images), 1.7), layout="constrained")
        figure.suptitle(
            "The image that each class's goodness likes best", x=0.01, ha="left", weight="bold", fontsize=11
        )
        for axes, image, name in zip(figure.subplots(1, len(images), squeeze=False)[0], images, words, strict=True):
            _picture(axes, _shown(image), GREY, 0.0, 1.0)
            axes.set_title(name, fontsize=9, pad=3)
        return save(figure, folder, "beliefs", ENDINGS)


def square(h: Float[Tensor, " units"]) -> Float[Tensor, "rows columns"]:
    """Units as an image that is about as wide as high; places that are left over are NaN, and stay empty."""
    columns = math.ceil(math.sqrt(len(h)))
    rows = math.ceil(len(h) / columns)
    filled = torch.full((rows * columns,), math.nan, dtype=h.dtype)
    filled[: len(h)] = h
    return filled.view(rows, columns)


def _shown(image: Float[Tensor, "channels height width"]) -> Tensor:
    """Grey as it is, three channels as colours, any other number as their mean."""
    return image[0] if len(image) == 1 else image.permute(1, 2, 0) if len(image) == 3 else image.mean(0)


def _picture(axes: Axes, image: Tensor, colours: str, low: float, high: float) -> None:
    """An image without ticks, in a thin frame."""
    axes.imshow(image.numpy(), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#c4c9cf", linewidth=0.6)
