"""Numbers and states in words; a value that is not there is a dash, never a number."""

import math
from typing import Any

import pandas as pd

NOTHING = "–"


def status(runs: pd.DataFrame) -> str:
    """The state of a contender's runs (one row a seed, as `stats.final` gives them), in words."""
    said = []
    for state in runs["state"].unique():
        group = runs[runs["state"] == state]
        many = f"{len(group)} of {len(runs)} seeds " if len(runs) > 1 and len(group) < len(runs) else ""
        last = group.iloc[-1]
        reason = str(last["reason"] or "")
        if state == "ok":
            said += [f"finished, but {reason}"] if reason else []
            continue
        if state in ("running", "interrupted") and last["epoch"] == last["epoch"]:
            reason = f"at epoch {last['epoch']:.3g}" + (f", {reason}" if reason else "")
            said.append(f"{many}{state} {reason}")
        else:
            said.append(f"{many}{state}" + (f": {reason}" if reason else ""))
    return "; ".join(said) or "finished"


def percent(value: Any) -> str:
    return NOTHING if _missing(value) else f"{100 * float(value):.2f} %"


def ratio(value: Any) -> str:
    return NOTHING if _missing(value) else f"{float(value):.2f} ×"


def count(value: Any) -> str:
    return NOTHING if _missing(value) else f"{int(value):,}"


def size(value: Any) -> str:
    """Bytes with a decimal unit."""
    if _missing(value):
        return NOTHING
    number = float(value)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def _missing(value: Any) -> bool:
    return value is None or not math.isfinite(float(value))


def literal(text: str) -> str:
    """For matplotlib: dollar signs in names are no mathematics."""
    return text.replace("$", r"\$")
