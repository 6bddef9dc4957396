"""The error that means "you asked for something that cannot be", and the warning that means "for something that you
can hardly have meant": a sentence each, no traceback in the terminal."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INSIDE = ("altprop", "torch", "jaxtyping", "beartype")
"""Packages whose frames stand between a caller and a rule."""


class UsageError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and the way out."""


class Diverged(UsageError):
    """What a rule learns grew without bound; what it had learnt is lost."""


class UsageWarning(UserWarning):
    """Work goes on, though hardly as it was meant. The message is one sentence: what, where, and the way out."""


def warn(message: str) -> None:
    """A UsageWarning that points at the line of the caller's that called altprop."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UsageWarning, stacklevel=level)


@contextmanager
def heard(hear: Callable[[UsageWarning], object]) -> Iterator[None]:
    """Within, what altprop warns of goes to `hear`, as often as it is said, and is not shown; other warnings are."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def sort(message: Warning | str, *where: Any, **options: Any) -> None:
            hear(message) if isinstance(message, UsageWarning) else show(message, *where, **options)

        warnings.simplefilter("always", UsageWarning)
        warnings.showwarning = sort
        yield
