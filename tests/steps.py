"""What the tests of several rules look at in a step: its gradients, its peak memory, and when blocks learn."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from altprop.analysis.trace import Trace
from altprop.bench.meter import named_tensors
from altprop.rule import Rule

DEPTHS = (4, 16, 64)


def gradients(rule: Rule, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    """What one step puts into `.grad`, caught as the optimizers read it."""
    names = {p: n for n, p in rule.named_parameters()}
    found: dict[str, Tensor] = {}

    def catch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        owned = (p for group in optimizer.param_groups for p in group["params"])
        found.update((names[p], p.grad.clone()) for p in owned if p.grad is not None)

    hooks = [optimizer.register_step_pre_hook(catch) for optimizer in rule.optimizers.values()]
    rule.step(x, y)
    for hook in hooks:
        hook.remove()
    return found


def peaks(build: Callable[[int], Rule], x: Tensor, y: Tensor) -> list[int]:
    """Peak bytes of the second step, of the rules that `build` makes for each depth."""
    found = []
    for depth in DEPTHS:
        rule = build(depth)
        rule.step(x, y)
        with Trace(named_tensors(rule)) as trace:
            rule.step(x, y)
        found.append(trace.peak_bytes)
    return found


def learnt_when_entered(rule: Rule, x: Tensor, y: Tensor) -> list[list[bool]]:
    """For each block that a step enters, in turn: which blocks have learnt by then."""
    before = [[p.detach().clone() for p in block.parameters()] for block in rule.net]
    learnt: list[list[bool]] = []

    def look(*_: object) -> None:
        pairs = (zip(block.parameters(), old, strict=True) for block, old in zip(rule.net, before, strict=True))
        learnt.append([any(not torch.equal(p, w) for p, w in pair) for pair in pairs])

    for block in rule.net:
        block.register_forward_pre_hook(look)
    rule.step(x, y)
    return learnt


class Opaque(nn.Module):
    """Rounds, and has no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = _Round.apply(x)
        return rounded


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("a derivative was taken through a block that has none")
