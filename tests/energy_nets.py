"""What the tests of predictive coding share: small nets in float64, and relaxation by autograd of the whole energy."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from altprop import nets


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(widths: list[int], classes: int = 3, **options: object) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, generator=generator(), **options).double()


def batch(shape: tuple[int, ...], classes: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    return x, torch.randint(classes, shape[:1], generator=generator(2))


def one_hot(y: Tensor, classes: int = 3) -> Tensor:
    return functional.one_hot(y, classes).double()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def layer(inputs: int, outputs: int) -> nn.Linear:
    return nets.linear(inputs, outputs, "lecun", generator(inputs))


NETS = {
    "relu": lambda: mlp([6, 9, 8, 7]),
    "tanh": lambda: mlp([6, 9, 8, 7], act="tanh"),
    "sigmoid": lambda: mlp([6, 9, 8], act="sigmoid"),
    "leaky-relu": lambda: mlp([6, 9, 8], act="leaky-relu"),
    "gelu": lambda: mlp([6, 9, 8], act="gelu"),
    "norm": lambda: mlp([6, 9, 8], norm=True),
    "no bias": lambda: mlp([6, 9, 8], bias=False),
    "output only": lambda: mlp([6]),
    "residual": lambda: nets.residual([6, 8, 8, 8], classes=3, act="tanh", generator=generator()).double(),
    "weightless": lambda: nn.Sequential(
        layer(6, 8), nn.Tanh(), nn.Unflatten(1, (2, 4)), nn.Flatten(), layer(8, 7), layer(7, 3)
    ).double(),
    "conv": lambda: nets.conv((1, 8, 8), [2, 3], classes=3, generator=generator()).double(),
}


def sample(name: str) -> tuple[Tensor, Tensor]:
    return batch((5, 1, 8, 8) if name == "conv" else (5, 6))


def cost(mu: Tensor, target: Tensor, output: str) -> Tensor:
    """One sample's cost each."""
    if output == "squared":
        return 0.5 * (target - mu).square().sum(1)
    return functional.cross_entropy(mu, target, reduction="none")


def whole_energy(
    blocks: Sequence[nn.Module],
    states: Sequence[Tensor],
    target: Tensor,
    output: str,
    beta: float = 1.0,
    precisions: Sequence[float] | None = None,
) -> Tensor:
    """One sample's energy each, from the input and all hidden states, by the blocks themselves."""
    energy = torch.zeros(len(target), dtype=target.dtype)
    for i, block in enumerate(blocks):
        mu = block(states[i])
        if i + 1 < len(blocks):
            p = 1.0 if precisions is None else precisions[i]
            energy = energy + 0.5 * p * (states[i + 1] - mu).square().flatten(1).sum(1)
        else:
            energy = energy + beta * cost(mu, target, output)
    return energy


def by_whole_energy(
    blocks: Sequence[nn.Module],
    x: Tensor,
    target: Tensor,
    sweeps: int,
    rate: float,
    order: str = "jacobi",
    output: str = "squared",
    momentum: float = 0.0,
    zero: bool = False,
    **energy: object,
) -> tuple[list[Tensor], list[Tensor]]:
    """States and weight gradients by autograd of the whole energy: no cache, no skipping, no products by hand."""
    states = [x]
    with torch.no_grad():
        for block in blocks[:-1]:
            states.append(block(states[-1]))
    hidden = list(range(1, len(blocks)))
    if zero:
        states = [x, *(torch.zeros_like(s) for s in states[1:])]
    orders = {
        "jacobi": [hidden],
        "gauss-seidel": [[i] for i in reversed(hidden)],
        "red-black": [hidden[::-1][::2], hidden[::-1][1::2]],
    }
    velocities = [torch.zeros_like(s) for s in states]
    for _ in range(sweeps):
        for group in filter(None, orders[order]):
            states = [s.detach().requires_grad_(i > 0) for i, s in enumerate(states)]
            total = whole_energy(blocks, states, target, output, **energy).sum()
            for i, slope in zip(group, torch.autograd.grad(total, [states[i] for i in group]), strict=True):
                velocities[i] = momentum * velocities[i] - slope
                states[i] = states[i].detach() + rate * velocities[i]
    states = [s.detach() for s in states]
    parameters = [p for p in nn.ModuleList(blocks).parameters()]
    mean = whole_energy(blocks, states, target, output, **energy).mean()
    return states, list(torch.autograd.grad(mean, parameters, allow_unused=True))


def backprop(net: nn.Module, x: Tensor, target: Tensor, output: str = "squared") -> list[Tensor]:
    return list(torch.autograd.grad(cost(net(x), target, output).mean(), list(net.parameters())))


def gradients_of(net: nn.Sequential, rule: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """What one step of a rule with `sgd` at rate 1 takes off the net's parameters; they are put back."""
    before = [p.detach().clone() for p in net.parameters()]
    rule.step(x, y)  # type: ignore[operator]
    found = [old - p.detach() for old, p in zip(before, net.parameters(), strict=True)]
    with torch.no_grad():
        for old, p in zip(before, net.parameters(), strict=True):
            p.copy_(old)
    return found


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error of any parameter's gradient."""
    return max(float((f - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True))
