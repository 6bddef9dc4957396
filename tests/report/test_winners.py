"""Figures of units that compete."""

from pathlib import Path

import torch

from altprop.report.winners import draw_fields, draw_winners, grid


def test_each_unit_has_its_place_in_the_grid() -> None:
    weights = torch.arange(1.0, 4.0).view(3, 1, 1, 1) * torch.tensor([[1.0, -0.5]])
    found = grid(weights, 2)
    assert found.shape == (4, 6)
    for place in ((0, 0), (0, 3), (2, 0)):
        assert found[place[0], place[1] : place[1] + 2].tolist() == [1.0, -0.5]
    assert bool(found[2, 3:].isnan().all()) and bool(found[1].isnan().all())
    assert grid(torch.randn(5, 3, 4, 4), 3).shape == (10, 15, 3)


def test_figures_are_written(tmp_path: Path) -> None:
    written = draw_fields(torch.randn(7, 3, 5, 5), "Seven units", tmp_path)
    written += draw_winners({"block 1": torch.tensor([3.0, 0.0, 9.0]), "block 2": torch.zeros(4)}, tmp_path)
    assert [path.name for path in written] == ["fields.png", "fields.svg", "winners.png", "winners.svg"]
    assert all(path.stat().st_size > 1000 for path in written)
