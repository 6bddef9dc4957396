"""Portraits: units become squares, and figures come for any number of blocks."""

import math
from pathlib import Path

import torch

from altprop.report.portraits import draw_activities, draw_fields, draw_goodness, draw_images, square


def test_units_fill_a_square_in_order_and_the_rest_stays_empty() -> None:
    found = square(torch.arange(7.0))
    assert found.shape == (3, 3)
    assert found.flatten()[:7].tolist() == list(range(7)) and all(math.isnan(v) for v in found.flatten()[7:].tolist())


def test_one_block_and_colour_images(tmp_path: Path) -> None:
    h = torch.randn(2, 12)  # of both signs, as from tanh
    image = torch.rand(3, 4, 4)
    written = draw_activities(image, ("cat", "dog"), {2: h}, {2: h.square().sum(1)}, {2: 12.0}, tmp_path)
    written += draw_goodness({2: torch.rand(50)}, {2: torch.rand(50)}, {2: 0.5}, tmp_path)
    written += draw_fields(torch.randn(3, 4, 4), "Three units", tmp_path)
    written += draw_images([torch.rand(1, 4, 4), torch.rand(1, 4, 4)], ["0", "1"], tmp_path)
    names = ["activities.png", "activities.svg", "goodness.png", "goodness.svg", "fields.png", "fields.svg"]
    names += ["beliefs.png", "beliefs.svg"]
    assert [path.name for path in written] == names
    assert all(path.stat().st_size > 1000 for path in written)
