"""What a step costs: a clock that runs only while it is told to, and counts from the tracer."""

import copy
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import altprop
from altprop.analysis.trace import Trace
from altprop.errors import heard
from altprop.rule import Rule


@dataclass
class Clock:
    """Wall and CPU seconds spent inside `with clock.running(device)`."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        synchronise(device)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            synchronise(device)
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


@dataclass(frozen=True)
class Cost:
    """One step's counts: operations (a multiply-add is 2) and peak bytes beyond parameters and optimizer state."""

    step_operations: int
    forward_operations: int
    peak_step_bytes: int
    parameters: int
    parameters_inference: int


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given: its work is asynchronous, the clock is not."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def cost(rule: Rule, x: Tensor, y: Tensor) -> Cost:
    """Trace a training step and a prediction of a copy, whose warnings nobody hears.

    The third step is traced: the first one also creates the optimizers' state, and the first two do what is done ever
    more seldom (whitening anew, looking for dead units).
    """
    random, rule = torch.get_rng_state(), copy.deepcopy(rule)
    state = rule.training_state()
    with heard(lambda _: None):
        rule.step(x, y)
        rule.step(x, y)
        with Trace(named_tensors(rule)) as step:
            rule.step(x, y)
    rule.load_training_state(state)
    rule.eval()
    rule.finish()
    with torch.no_grad(), Trace(named_tensors(rule)) as forward:
        rule(x)
    torch.set_rng_state(random)
    held = named_tensors(rule)
    read = {name for _, name, _ in forward.accesses}
    return Cost(
        step.operations,
        forward.operations,
        step.peak_bytes,
        sum(t.numel() for t in held.values()),
        sum(t.numel() for name, t in held.items() if name in read),
    )


def named_tensors(rule: Rule) -> dict[str, Tensor]:
    """Everything that a rule holds: parameters and buffers by name."""
    return dict(rule.named_parameters()) | dict(rule.named_buffers())


def machine() -> dict[str, Any]:
    """What the run was measured on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    return {"system": platform.system(), "processor": model, "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """What the run was measured with."""
    return {
        "python": platform.python_version(),
        "altprop": altprop.__version__,
        **{name: version(name) for name in ("torch", "numpy")},
    }


def load_average() -> float | None:
    """The machine's load over the last minute, where the system tells it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
