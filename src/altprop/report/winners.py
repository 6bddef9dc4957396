"""Figures of units that compete: what the first layer's units look at, and how often each of them wins."""

import math
from pathlib import Path

import matplotlib as mpl
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from altprop.report.figures import LOOK, save

ENDINGS = ("png", "svg")
DEAD, ALIVE = "#d3500c", "#0a78c2"


def draw_fields(
    weights: Float[Tensor, "units channels height width"], words: str, folder: Path, name: str = "fields"
) -> list[Path]:
    """`fields.png` and `.svg` (or another name): each unit's weights as an image, in one grid.

    One channel: red above zero, blue below; three: in colour, grey at zero.
    """
    units = len(weights)
    columns = math.ceil(math.sqrt(1.6 * units))
    rows = math.ceil(units / columns)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(7.6, 0.5 + 7.6 * rows / columns), layout="constrained")
        figure.suptitle(words, x=0.01, ha="left", weight="bold", fontsize=11)
        axes = figure.subplots()
        axes.imshow(grid(weights, columns).numpy(), cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest")
        axes.set_axis_off()
        return save(figure, folder, name, ENDINGS)


def draw_winners(wins: dict[str, Float[Tensor, " units"]], folder: Path) -> list[Path]:
    """`winners.png` and `.svg`: for each block (by its words), its units' shares of wins, the most frequent first; and
    how many never won."""
    columns = min(len(wins), 4)
    rows = math.ceil(len(wins) / columns)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(1.0 + 2.6 * columns, 0.6 + 2.6 * rows), layout="constrained")
        figure.suptitle("How often each unit wins", x=0.01, ha="left", weight="bold", fontsize=11)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.ravel()[len(wins) :]:
            axes.set_axis_off()
        for axes, (words, won) in zip(panels.ravel(), wins.items(), strict=False):
            shares = (won / won.sum().clamp_min(1.0) * len(won)).sort(descending=True).values
            dead = int((won == 0).sum())
            axes.fill_between(range(len(won)), shares.numpy(), step="mid", color=ALIVE, alpha=0.6, linewidth=0)
            axes.axhline(1.0, color="#3a4048", linewidth=1.0, linestyle="--")
            axes.axvspan(len(won) - dead - 0.5, len(won) - 0.5, color=DEAD, alpha=0.15 if dead else 0.0, linewidth=0)
            axes.set_title(f"{words}\n{dead:,} of {len(won):,} never won", fontsize=9)
            axes.set_xlim(-0.5, len(won) - 0.5)
        for axes in panels[:, 0]:
            axes.set_ylabel("wins, 1 = an equal share")
        for axes in panels[-1]:
            axes.set_xlabel("unit, by wins")
        return save(figure, folder, "winners", ENDINGS)


def grid(weights: Float[Tensor, "units channels height width"], columns: int) -> Tensor:
    """All units in one picture, a row of pixels between them: (height, width) in [-1, 1], or with three colours in
    [0, 1]; each unit by its own largest weight."""
    units, channels, height, width = weights.shape
    rows = math.ceil(units / columns)
    colour = channels == 3
    fields = weights if colour else weights.mean(1, keepdim=True)
    fields = fields / fields.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
    picture = torch.full((rows * columns, fields.shape[1], height + 1, width + 1), math.nan, dtype=weights.dtype)
    picture[:units, :, :height, :width] = (fields + 1.0) / 2.0 if colour else fields
    picture = picture.view(rows, columns, -1, height + 1, width + 1).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return picture.nan_to_num(1.0) if colour else picture[..., 0]
