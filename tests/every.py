"""What the tests over all rules share: each rule's contender on the digits, small and quick."""

from dataclasses import replace

import torch

from altprop.bench import protocol
from altprop.bench.contender import Contender, Setting
from altprop.bench.contenders import contender
from altprop.rule import Rule
from altprop.tasks import Task, load

DIGITS: Task = load("digits").flat()
SETTING = Setting("digits", DIGITS.problem, "mlp", 64, 2)


def rule_of(name: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: object) -> Rule:
    chosen: Contender = replace(contender(name, SETTING), **changes)
    return chosen.build(SETTING, seed).to(dtype)


def batches(size: int, count: int, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first `count` batches of the digits' training order, epoch after epoch."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    epoch = 0
    while len(found) < count:
        found += list(DIGITS.loader("train", size, seed=protocol.seed_of("data", 0), epoch=epoch))
        epoch += 1
    return [(x.to(dtype), y) for x, y in found[:count]]


def teach(rule: Rule, data: list[tuple[torch.Tensor, torch.Tensor]], start: float = 0.0, end: float = 1.0) -> Rule:
    """Train on the batches, progress running from `start` to `end`."""
    for i, (x, y) in enumerate(data):
        rule.progress = start + (end - start) * i / len(data)
        rule.step(x, y)
    return rule


@torch.no_grad()
def accuracy(rule: Rule, split: str = "test") -> dict[str, float]:
    """Each predictor's accuracy."""
    rule.eval()
    part = getattr(DIGITS, split)
    x, y = part.batch(slice(None))
    dtype = next(rule.parameters()).dtype
    return {
        name: float((predict(x.to(dtype)).argmax(1) == y).double().mean())
        for name, predict in rule.predictors().items()
    }


def state(rule: Rule) -> dict[str, torch.Tensor]:
    """All that the next step depends on, as one flat dictionary."""
    tensors: dict[str, torch.Tensor] = rule.training_state()["tensors"]
    return tensors


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
