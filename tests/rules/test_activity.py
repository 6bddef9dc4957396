"""What the forward-forward family shares, against autograd and sums by hand."""

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.rule import Problem
from altprop.rules.forward_only.activity import lengths, limited, normalised, normalised_, refused, softmax_error


@pytest.mark.parametrize("shape", [(5, 7), (5, 2, 3, 4), (0, 7)])
def test_normalised_rows_have_mean_square_one_and_keep_their_direction(shape: tuple[int, ...]) -> None:
    h = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = normalised(h)
    torch.testing.assert_close(a.flatten(1).square().mean(1), torch.ones(len(h)).double())
    torch.testing.assert_close(a * lengths(h.flatten(1)).view(-1, *[1] * (h.dim() - 1)), h * h.shape[1:].numel() ** 0.5)
    assert torch.equal(normalised_(h.clone()), a)


def test_a_row_of_zeros_stays_one() -> None:
    assert torch.equal(normalised(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_softmax_error_is_the_derivative_of_the_cross_entropy() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 2, 0])
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y), logits)
    torch.testing.assert_close(softmax_error(logits.detach(), y), expected)


def test_limited_activities_and_nets_that_cannot_contrast() -> None:
    assert [limited(nets.mlp([4, 4], act=act)[0]) for act in ("tanh", "sigmoid", "relu", "gelu")] == [
        True,
        True,
        False,
        False,
    ]
    assert refused(nets.mlp([4, 4]), Problem((4,), 3)) is None
    assert "two classes" in str(refused(nets.mlp([4, 4]), Problem((4,), 1)))
    assert "output block" in str(refused(nets.mlp([4, 4], classes=3), Problem((4,), 3)))
    assert "batch statistics" in str(refused(nn.Sequential(*nets.mlp([4, 4]), nn.BatchNorm1d(4)), Problem((4,), 3)))
    assert "trainable" in str(refused(nets.mlp([4, 4]).requires_grad_(False), Problem((4,), 3)))
