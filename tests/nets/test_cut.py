"""Cutting a user's own model into blocks."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from altprop import Backprop, Problem, SignalPropagation, UsageError, blocks
from altprop.nets import Block, LeakyIntegrateAndFire, LeakyRate, MeanOverTime, Sign


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def model() -> nn.Sequential:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(features, nn.Linear(36, 6), nn.Dropout(0.0), nn.GELU(), Residual(), nn.Linear(6, 3))


def test_same_function_same_parameters() -> None:
    whole = model().eval()
    cut = blocks(whole).eval()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(cut(x), whole(x), rtol=0, atol=0)
    assert [id(p) for p in cut.parameters()] == [id(p) for p in whole.parameters()]


def test_slots() -> None:
    conv, linear, residual, output = blocks(model())
    assert isinstance(conv, Block) and isinstance(conv.norm, nn.BatchNorm2d) and isinstance(conv.activation, nn.ReLU)
    assert isinstance(conv.pool, nn.Sequential) and len(conv.pool) == 2
    assert isinstance(linear, nn.Sequential)  # a dropout has no slot: the modules stay in their row, as one block
    assert isinstance(residual, Residual)
    assert isinstance(output, Block) and output.activation is None


def test_activation_before_norm_stays_in_its_order() -> None:
    (block,) = blocks(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3)))
    assert isinstance(block, nn.Sequential) and isinstance(block[1], nn.ReLU)


def test_training_the_blocks_trains_the_model() -> None:
    whole = model()
    before = [p.detach().clone() for p in whole.parameters()]
    rule = Backprop(blocks(whole), Problem((1, 8, 8), 3))
    rule.step(torch.rand(8, 1, 8, 8), torch.randint(0, 3, (8,)))
    moved = [not torch.equal(a, b) for a, b in zip(before, whole.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 1  # a bias before batch normalisation has no gradient


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Residual, "Residual is not an nn.Sequential, so its forward\\(\\) may branch"),
        (lambda: (lambda a: nn.Sequential(a, nn.ReLU(), a))(nn.Linear(3, 3)), "'0' and '2' share a parameter"),
    ],
)
def test_refusals_say_why(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match=words):
        blocks(make())


def test_tied_weights_are_named() -> None:
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    two.weight = one.weight
    with pytest.raises(UsageError, match=r"'0\.0' and '1' share a parameter"):
        blocks(nn.Sequential(nn.Sequential(one, nn.ReLU()), two))


@pytest.mark.parametrize("make", [Sign, lambda: LeakyIntegrateAndFire(4), lambda: LeakyRate(nn.ReLU(), 4)])
def test_our_own_activations_stand_in_their_slot(make: Callable[[], nn.Module]) -> None:
    timed = [] if make is Sign else [MeanOverTime()]
    cut = blocks(nn.Sequential(nn.Linear(6, 8), make(), *timed, nn.Linear(8, 3)))
    assert [type(block) for block in cut] == [Block, *map(type, timed), Block]
    built = nn.Sequential(Block(cut[0].affine, None, make()), *timed, cut[-1])
    x, y = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    rules = [SignalPropagation(copy.deepcopy(net), Problem((6,), 3)) for net in (cut, built)]
    for rule in rules:
        rule.step(x, y)
    assert all(torch.equal(p, q) for p, q in zip(rules[0].parameters(), rules[1].parameters(), strict=True))
