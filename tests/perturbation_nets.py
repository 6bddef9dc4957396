"""What the tests of the perturbing rules share: nets, batches, and derivatives of plain formulas, sample by sample."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Problem

CLASSES = 4
Make = Callable[[], nn.Sequential]

NETS = pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nets.mlp([6, 8, 7], classes=CLASSES), (6,)),
        (lambda: nets.mlp([6, 8, 7], classes=CLASSES, act="tanh", norm=True), (6,)),
        (lambda: nets.mlp([6, 8, 7], classes=CLASSES, bias=False), (6,)),
        (lambda: nets.conv((2, 8, 8), [2, 3], classes=CLASSES), (2, 8, 8)),
        (lambda: nets.local((2, 8, 8), [(2, 4, 2), (3, 2, 1)], classes=CLASSES, init="kaiming"), (2, 8, 8)),
        (lambda: nn.Sequential(nn.Flatten(), *nets.mlp([18, 7], classes=CLASSES), nn.Tanh()), (2, 3, 3)),
        (lambda: nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, CLASSES)), (6,)),
    ],
    ids=["relu", "layer norm", "no bias", "conv with pooling", "local fields", "blocks without weights", "bare layers"],
)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % CLASSES


def targets(size: int) -> Tensor:
    """Of a regression."""
    return torch.linspace(-1, 1, size * CLASSES, dtype=torch.float64).view(size, CLASSES)


def problem(shape: tuple[int, ...], kind: str = "classification") -> Problem:
    return Problem(shape, CLASSES, kind)


def sample_loss(scores: Tensor, y: Tensor) -> Tensor:
    """One sample's loss from its scores and its label, or its targets."""
    return ((scores - y) ** 2).sum() / 2 if y.dim() else scores.exp().sum().log() - scores[y]


def true_gradient(net: nn.Sequential, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of the mean loss, by autograd."""
    loss = sum(sample_loss(s, t) for s, t in zip(net(x), y, strict=True)) / len(x)
    names = {f"net.{name}": p for name, p in net.named_parameters()}
    return dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


def pushed(net: nn.Sequential, h: Tensor, pushes: dict[int, Tensor]) -> Tensor:
    """The scores where pushes are added to the outputs of some blocks' layers."""
    for i, block in enumerate(net):
        if i in pushes:
            h = nets.affine(block)(h) + pushes[i]
            rest = (block.norm, block.activation, block.pool) if isinstance(block, nets.Block) else ()
            for part in rest:
                h = h if part is None else part(h)
        else:
            h = block(h)
    return h


def layer_inputs(net: nn.Sequential, x: Tensor) -> dict[int, Tensor]:
    """What the layer of each block that learns is given."""
    found = {}
    for i, block in enumerate(net):
        if any(True for _ in block.parameters()):
            found[i] = x
        x = block(x).detach()
    return found


def add_share(total: dict[str, Tensor], net: nn.Sequential, i: int, h: Tensor, delta: Tensor) -> None:
    """Add what one sample's delta at the output of block i's layer gives the layer's parameters, by autograd."""
    layer = nets.affine(net[i])
    names = {p: f"net.{name}" for name, p in net.named_parameters()}
    found = torch.autograd.grad((layer(h) * delta).sum(), list(layer.parameters()))
    for p, g in zip(layer.parameters(), found, strict=True):
        total[names[p]] = total.get(names[p], 0) + g


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)
