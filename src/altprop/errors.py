"""The one error that means "you asked for something that cannot be": a sentence, no traceback in the terminal."""

import sys
import warnings

INSIDE = ("altprop", "torch", "jaxtyping", "beartype")
"""Packages whose frames stand between a caller and a rule."""


class UsageError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and the way out."""


def warn(message: str) -> None:
    """A UserWarning that points at the line of the caller's that called altprop."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
