"""Measures of drawings against values that can be read off."""

import math

import torch

from altprop.analysis.drawings import class_gaussians, frechet, nearest, recognised, spread


def test_recognised_by_class() -> None:
    scores = torch.eye(3)[[0, 1, 1, 2]]
    shares = recognised(scores, torch.tensor([0, 0, 1, 1]))
    assert shares[:2].tolist() == [0.5, 0.5] and math.isnan(shares[2])


def test_spread_is_relative_to_the_real_ones_and_within_classes() -> None:
    y = torch.tensor([0, 0, 1, 1])
    real = torch.tensor([[0.0], [2.0], [100.0], [104.0]])
    drawn = torch.tensor([[0.0], [1.0], [-50.0], [-52.0]])
    assert spread(drawn, y, real, y) == 0.5


def test_copies_are_at_no_distance() -> None:
    images = torch.tensor([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
    assert nearest(images[1:2], images) == 0.0
    assert nearest(torch.tensor([[0.0, 1.0], [3.0, 4.0]]), images) == 0.5


def test_frechet_distance_of_gaussians() -> None:
    a = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0))
    assert abs(frechet(a, a)) < 1e-9
    assert math.isclose(frechet(a + torch.tensor([3.0, 0.0]), a), 9.0, rel_tol=1e-6)
    spread_out = frechet(2 * a, a)  # tr(4 I + I - 2 * 2 I) = 2
    assert math.isclose(spread_out, 2.0, rel_tol=0.03)


def test_pixel_gaussians_have_their_class_mean_and_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat(500)
    x = 0.3 + 0.4 * y[:, None] + 0.05 * torch.randn(1000, 3, generator=generator)
    labels = torch.tensor([1, 0]).repeat(400)
    drawn = class_gaussians(x, y, labels, generator)
    for c in (0, 1):
        torch.testing.assert_close(drawn[labels == c].mean(0), x[y == c].mean(0), atol=0.01, rtol=0)
        torch.testing.assert_close(drawn[labels == c].std(0), x[y == c].std(0), atol=0.01, rtol=0)
