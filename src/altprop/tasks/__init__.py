"""Data: the built-in digits, any image data set of the Hugging Face kind, tuples of images, and windows of a text.

Loaded at first use, so that `names()` answers without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from altprop.tasks.catalogue import names

if TYPE_CHECKING:
    from altprop.tasks.loading import load
    from altprop.tasks.permutation import order
    from altprop.tasks.side_by_side import tuples
    from altprop.tasks.symbols import text
    from altprop.tasks.task import Split, Task

__all__ = ["Split", "Task", "load", "names", "order", "text", "tuples"]

_PLACES = {
    "Split": "task",
    "Task": "task",
    "load": "loading",
    "order": "permutation",
    "text": "symbols",
    "tuples": "side_by_side",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'altprop.tasks' has no attribute {name!r}")
    return getattr(import_module(f"altprop.tasks.{_PLACES[name]}"), name)
