"""How fast predictive coding's gradients are found: states by hand, against autograd of the whole energy.

Samples a CPU second, gradients only (no optimizer, no data), one thread, all ways in turn in every round. Public code
mostly writes the energy of all states as one number, and asks autograd for its slopes in every sweep; `whole_energy` is
that way, from the same start and with the same cost, and its gradients are the same.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop import nets, rules
from altprop.rule import Rule

SWEEPS, BATCH, RATE = 8, 128, 0.1
WAYS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "states (predictive-coding)": ("predictive-coding", {"sweeps": SWEEPS, "rate": RATE}),
    "errors (error-predictive-coding)": ("error-predictive-coding", {"sweeps": SWEEPS, "rate": RATE}),
    "z-il": ("z-il", {}),
}
AUTOGRAD, BACKPROP = "states, autograd of the whole energy", "backprop, autograd"


def whole_energy(net: nn.Sequential, x: Float[Tensor, "batch inputs"], y: Int[Tensor, " batch"]) -> None:
    """Fill `.grad` as predictive coding does, with autograd of the whole energy in every sweep."""
    with torch.no_grad():
        states = [x]
        for block in list(net)[:-1]:
            states.append(block(states[-1]))
    for _ in range(SWEEPS):
        states = [x, *(s.detach().requires_grad_() for s in states[1:])]
        slopes = torch.autograd.grad(energy(net, states, y), states[1:])
        with torch.no_grad():
            states = [x, *(s - RATE * slope for s, slope in zip(states[1:], slopes, strict=True))]
    fill(net, energy(net, states, y) / len(x))


def energy(net: nn.Sequential, states: list[Tensor], y: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """The energy of all samples together."""
    predictions = [block(s) for block, s in zip(net, states, strict=True)]
    hidden = zip(states[1:], predictions[:-1], strict=True)
    total = sum((0.5 * (s - mu).square().sum() for s, mu in hidden), torch.zeros(()))
    return total + nn.functional.cross_entropy(predictions[-1], y, reduction="sum")


def fill(net: nn.Sequential, loss: Float[Tensor, ""]) -> None:
    """Every parameter's `.grad`."""
    parameters = list(net.parameters())
    for p, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = slope


def gradients_only(rule: Rule) -> Rule:
    """The rule with an `update` that lets gradients lie."""
    rule.update = lambda part: None  # type: ignore[method-assign]
    return rule


def calls(act: str) -> dict[str, Callable[[], object]]:
    """One batch's gradients, by the words in the table."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, 784, generator=generator)
    y = torch.randint(0, 10, (BATCH,), generator=generator)

    def net() -> nn.Sequential:
        return nets.mlp([784, 128, 128, 128], classes=10, act=act)

    made: dict[str, Callable[[], object]] = {}
    for way, (name, options) in WAYS.items():
        made[way] = partial(gradients_only(rules.find(name)(net(), **options)).learn, x, y)
    plain = net()
    made[AUTOGRAD] = partial(whole_energy, plain, x, y)
    made[BACKPROP] = lambda: fill(plain, nn.functional.cross_entropy(plain(x), y))
    return made


def seconds(call: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def speed(rounds: int = 25, repeats: int = 20) -> pd.DataFrame:
    """One row a way and activation: samples a CPU second (median over rounds), and the median of its rounds' ratios to
    autograd of the whole energy."""
    torch.set_num_threads(1)
    rows = []
    for act in ("gelu", "relu"):
        made = calls(act)
        found: dict[str, list[float]] = {way: [] for way in made}
        for round_ in range(rounds + 2):  # two to warm up
            for way, call in made.items():
                taken = seconds(call, repeats)
                if round_ >= 2:
                    found[way].append(taken)
        for way, times in found.items():
            ratio = statistics.median(a / b for a, b in zip(found[AUTOGRAD], times, strict=True))
            rate = round(BATCH / statistics.median(times))
            rows.append({"act": act, "way": way, "samples_per_cpu_second": rate, "ratio": round(ratio, 2)})
    return pd.DataFrame(rows)
