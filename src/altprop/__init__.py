"""altprop: train PyTorch networks without backpropagation, and compare every serious alternative fairly.

Everything here is loaded at its first use, so that `altprop --help` does not wait for torch.
"""

from importlib import import_module
from typing import Any

from altprop.errors import Diverged, UsageError, UsageWarning
from altprop.rules import RULES

__version__ = "0.1.0"

_PLACES = {
    "Claims": "altprop.rule",
    "GPSP": "altprop.rules.energy.gpsp",
    "Metrics": "altprop.rule",
    "Problem": "altprop.rule",
    "Rule": "altprop.rule",
    "blocks": "altprop.nets",
    "compare": "altprop.bench.compare",
    "convert": "altprop.conversion",
    "load": "altprop.tasks",
    "stream": "altprop.bench.stream",
    **{place.partition(":")[2]: place.partition(":")[0] for place in RULES.values()},
}
_MODULES = ("nets", "rule", "rules", "schedules", "tasks", "bench", "analysis", "report")

__all__ = ["RULES", "Diverged", "UsageError", "UsageWarning", "__version__", *_PLACES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name in _MODULES:
        return import_module(f"altprop.{name}")
    raise AttributeError(f"module 'altprop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
