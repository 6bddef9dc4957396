"""Symmetric nets relaxed with a graph through every sweep: what the rules on them are measured against."""

import torch
from torch import Tensor, nn

from altprop import nets

EXACT = {"sweeps": 100, "tolerance": 0.0}
"""To the last bit, whatever it costs."""


def small_net(*widths: int, act: str = "tanh", output: bool = True, scale: float = 0.5) -> nn.Sequential:
    """In float64, with weights small enough to settle fast, and biases that are not zero."""
    generator = torch.Generator().manual_seed(3)
    classes = widths[-1] if output else None
    net = nets.mlp(widths[:-1] if output else widths, classes=classes, act=act, init="lecun", generator=generator)
    for p in net.double().parameters():
        p.data = scale * p.data if p.dim() > 1 else 0.3 * torch.randn(p.shape, generator=generator).double()
    return net


def batch(n: int, inputs: int, classes: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, inputs, generator=g, dtype=torch.float64), torch.randint(classes, (n,), generator=g)


def sweep(net: nn.Sequential, x: Tensor, s: list[Tensor], g: float) -> list[Tensor]:
    """All states of a perceptron moved at once."""
    found = []
    for i, block in enumerate(net):
        u = block.affine(x if i == 0 else s[i - 1])
        if i + 1 < len(s):
            u = u + g * s[i + 1] @ net[i + 1].affine.weight
        found.append(u if block.activation is None else block.activation(u))
    return found


def unrolled(net: nn.Sequential, x: Tensor, g: float = 1.0, sweeps: int = 150) -> list[Tensor]:
    states = [torch.zeros(len(x), block.affine.out_features, dtype=x.dtype) for block in net]
    for _ in range(sweeps):
        states = sweep(net, x, states, g)
    return states


def settled_gradients(net: nn.Sequential, x: Tensor, y: Tensor, g: float = 1.0) -> dict[str, Tensor]:
    """Of the squared error of the settled outputs, mean over the batch, by autograd through all sweeps."""
    top = unrolled(net, x, g)[-1]
    error = top - nn.functional.one_hot(y, top.shape[1])
    loss = 0.5 * error.square().sum(1).mean()
    found = torch.autograd.grad(loss, list(net.parameters()))
    return {f"net.{name}": v for (name, _), v in zip(net.named_parameters(), found, strict=True)}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of a parameter's gradient."""
    assert found.keys() == expected.keys()
    return max(float((found[k] - v).norm() / v.norm()) for k, v in expected.items())
