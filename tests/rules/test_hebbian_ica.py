"""What Hebbian ICA says of bad input, and its signs; its updates are compared in `altprop.oracles`."""

from functools import partial

import pytest
import torch
from torch import Tensor

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.ica import HebbianICA

UPDATES = pytest.mark.parametrize("update", ["one-unit", "nonlinear-pca", "infomax", "easi"])


def rule_on(units: int = 4, rate: float = 0.02, **options: object) -> HebbianICA:
    return HebbianICA(nets.mlp([8, units]), Problem((8,), 3), optimizer=partial(torch.optim.SGD, lr=rate), **options)


def batch(size: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(size, 8, generator=draw), torch.randint(3, (size,), generator=draw)


@pytest.mark.parametrize("update", ["one-unit", "nonlinear-pca"])
def test_input_that_is_not_white_is_refused(update: str) -> None:
    x, y = batch()
    x[:, 0] *= 10.0
    with pytest.raises(UsageError, match=r"is not white \(variances from .* put nets.Whiten before the block"):
        rule_on(update=update, inputs="centred").step(x, y)
    rule_on(update=update).step(x, y)
    rule_on(update=update, inputs="as they are").step(*batch(200))
    small = rule_on(update=update, inputs="centred")
    with pytest.raises(UsageError, match="is not white"):
        for i in range(0, 60, 4):
            small.step(x[i : i + 4], y[i : i + 4])


@pytest.mark.parametrize("update", ["infomax", "easi"])
def test_rules_that_whiten_take_it(update: str) -> None:
    x, y = batch()
    x[:, 0] *= 3.0
    rule_on(update=update, inputs="centred").step(x, y)


@pytest.mark.parametrize("orthogonal", ["symmetric", "deflation"])
def test_rows_are_orthonormal_after_every_step(orthogonal: str) -> None:
    rule = rule_on(orthogonal=orthogonal).double()
    for seed in range(3):
        x, y = batch(seed=seed)
        rule.step(x.double(), y)
        w = rule.net[1].affine.weight.detach()
        torch.testing.assert_close(w @ w.T, torch.eye(4, dtype=w.dtype), rtol=0, atol=1e-10)


def test_more_units_than_inputs() -> None:
    with pytest.raises(UsageError, match="12 units that see 8 inputs"):
        rule_on(units=12, orthogonal="deflation")
    rule = rule_on(units=12)
    rule.step(*batch(10))
    w = rule.net[1].affine.weight.detach()
    torch.testing.assert_close(w.T @ w, torch.eye(8), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("update", "heavy"), [("infomax", 1.0), ("easi", -1.0), ("one-unit", -1.0)])
def test_signs_follow_the_tails(update: str, heavy: float) -> None:
    rule = rule_on(units=2, update=update, inputs="as they are").double()
    draw = torch.Generator().manual_seed(0)
    u = torch.rand(4000, 2, generator=draw, dtype=torch.float64) - 0.5
    tails = torch.stack([-u[:, 0].sign() * (1 - 2 * u[:, 0].abs()).log() / 2**0.5, u[:, 1] * 12**0.5], 1)
    if update == "infomax":
        signs = rule._sign(0, tails**4, tails**2)
    else:
        signs = rule._sign(0, tails * tails.tanh() - (1 - tails.tanh() ** 2))
    assert signs.flatten().tolist() == [heavy, -heavy]


@UPDATES
def test_one_sample_at_a_time_stays_finite(update: str) -> None:
    rule = rule_on(update=update, rate=1e-3)
    x, y = batch(100)
    for i in range(100):
        rule.step(x[i : i + 1], y[i : i + 1])
    assert all(bool(torch.isfinite(p).all()) for p in rule.parameters())


@pytest.mark.parametrize(  # rows of the fourth have length 1 at any rate
    ("update", "words"),
    [
        ("nonlinear-pca", "weights of block 1 grow without bound .* its rate is "),
        ("infomax", r"the loss is (inf|nan) after .* start anew with rates below 30, "),
        ("easi", "weights of block 1 grow without bound .* its rate is "),
    ],
)
def test_a_rate_that_is_too_high_is_named(update: str, words: str) -> None:
    rule = rule_on(update=update, rate=30.0)
    x, y = batch()
    with pytest.raises(UsageError, match=words):
        for _ in range(200):
            rule.step(x, y)


def test_images_that_are_too_large_to_whiten_are_refused() -> None:
    with pytest.raises(UsageError, match="up to 4,096 values are whitened"):
        HebbianICA(nets.conv((1, 28, 28), [32, 32]), Problem((1, 28, 28), 3))
    net = nets.conv((1, 28, 28), [4, 4])
    HebbianICA(net, Problem((1, 28, 28), 3), update="easi", inputs="centred")


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="choose an update among"):
        rule_on(g="relu")
