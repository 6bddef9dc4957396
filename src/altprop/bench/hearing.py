"""What is heard of a step: scores, as they come out of a rule's modules, and the moments of its updates."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.rule import Rule

ANSWER = "answer"
"""The event beside the parts' updates."""


@dataclass(frozen=True)
class Voice:
    """Where an answer is overheard: the sum of what these modules put out when a step calls them for the `call`-th
    time, counted from 0."""

    modules: tuple[str, ...]
    call: int


class Hearing:
    """One step as it is heard: what modules put out in the shape of scores, and when something had happened."""

    def __init__(self, shape: tuple[int, int], now: Callable[[], float], voice: Voice | None) -> None:
        self.shape, self.now, self.voice = shape, now, voice
        self.said: dict[str, list[Tensor]] = {}
        self.delays: dict[str, float] = {}
        self.start = 0.0

    @contextmanager
    def of(self, rule: Rule, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Listen to these modules, and to the updates of all parts."""
        handles = [module.register_forward_hook(partial(self._hear, name)) for name, module in modules.items()]
        handles += [o.register_step_post_hook(partial(self.note, part)) for part, o in rule.optimizers.items()]
        try:
            self.start = self.now()
            yield
        finally:
            for handle in handles:
                handle.remove()

    def note(self, event: str, *_: object) -> None:
        self.delays[event] = self.now() - self.start

    def _hear(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.shape == self.shape:
            said = self.said.setdefault(name, [])
            said.append(output.detach().clone())  # what comes next may work in place
            if self.voice is not None and name == self.voice.modules[-1] and len(said) == self.voice.call + 1:
                self.note(ANSWER)

    def total(self, voice: Voice) -> Float[Tensor, "batch outputs"] | None:
        """What a voice said; None if it was silent."""
        each = [self.said.get(name, []) for name in voice.modules]
        if any(len(said) <= voice.call for said in each):
            return None
        total, *others = (said[voice.call] for said in each)
        for other in others:
            total = total + other
        return total


def voices(hearing: Hearing, modules: Mapping[str, nn.Module]) -> list[Voice]:
    """Where the answer may have been: each module by itself, and each list of modules together, as heads on blocks."""
    alone = [Voice((name,), call) for name, said in hearing.said.items() for call in range(len(said))]
    together = []
    for name, module in modules.items():
        if isinstance(module, nn.ModuleDict | nn.ModuleList):
            children = (f"{name}.{child}" for child, _ in module.named_children())
            together.append(Voice(tuple(child for child in children if child in hearing.said), 0))
    return alone + [voice for voice in together if len(voice.modules) > 1]


def gap(said: Float[Tensor, "batch outputs"] | None, scores: Float[Tensor, "batch outputs"]) -> float:
    """The largest difference as a share of the largest score; infinite where nothing comparable was said."""
    if said is None or not bool(torch.isfinite(said).all()):
        return math.inf
    least = torch.finfo(scores.dtype).tiny
    return float((said - scores).abs().max() / scores.abs().max().clamp_min(least))
