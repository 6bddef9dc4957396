"""Who is compared with whom: from stored rows to cases, in which every contender stands once.

A *case* is what one leaderboard shows: a task, or a task at one depth where a store holds several. A contender that has
only one shape (a linear control, a net of its own) stands in every case of its task. Rows that must not be averaged
together (other hyperparameters, budgets, precisions) become contenders of their own, named by what differs.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from altprop.errors import UsageError

CONTENDER = ["task", "rule", "variant", "predictor"]
SHAPE = ["net", "depth"]
#: Backprop's variant on black boxes, which stands in for it as the yardstick where it cannot train the net.
STRAIGHT_THROUGH = "straight through"
BUDGET = ["mode", "epochs", "samples_planned", "seconds_planned"]
SETTING = ["width", *BUDGET, "batch_size", "precision", "device", "threads"]
#: A run's state is the first of these that any of its rows carries.
TROUBLE = ["unsupported", "diverged", "interrupted", "running"]
WORDS = [
    "task",
    "rule",
    "variant",
    "predictor",
    "net",
    "split",
    "metric",
    "status",
    "reason",
    "card",
    "hyperparameters",
    "machine",
    "versions",
    "command",
    "task_note",
    "started",
    "source_hash",
    "protocol",
    "precision",
    "device",
    "mode",
]


def label(rule: str, variant: str = "", predictor: str = "") -> str:
    """The name of a contender everywhere: `rule · variant (predictor)`."""
    return rule + (f" · {variant}" if variant else "") + (f" ({predictor})" if predictor else "")


def newest(results: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that may be compared, and a sentence for each kind of row that is left out.

    Kept are: the newest protocol, of each contender the source that ran last, of each seed the run that started last.
    """
    rows = worded(results).reset_index(drop=True)
    notes: list[str] = []
    if rows.empty:
        return rows, notes
    protocol = max(rows["protocol"].unique(), key=_version)
    rows, left = _split(rows, rows["protocol"] == protocol)
    if left:
        notes.append(f"{left:,} rows of an older protocol are left out: protocols are never mixed (shown: {protocol}).")
    last = rows.sort_values("started", kind="stable").groupby(CONTENDER[:3])["source_hash"].transform("last")
    rows, left = _split(rows, rows["source_hash"] == last.loc[rows.index])
    if left:
        notes.append(f"{left:,} rows of older versions of a rule's source are left out.")
    runs = rows.drop_duplicates("run").sort_values(["started", "run"], kind="stable")
    settings = [name for name in SETTING if name in rows]  # rows that were published may lack the newer ones
    same = [*CONTENDER[:3], *SHAPE, *settings, "hyperparameters", "seed"]
    rows, left = _split(rows, rows["run"].isin(runs.drop_duplicates(same, keep="last")["run"]))
    if left:
        notes.append(f"{left:,} rows of earlier runs with the same settings and seed are left out.")
    return rows, notes


def arrange(results: pd.DataFrame) -> pd.DataFrame:
    """The rows with `case`, `label` and `state` (the status of the whole run); rows of a contender with one shape are
    repeated in every case of its task. A table that is arranged already comes back as it is.

    Raises UsageError where protocols are mixed: their numbers cannot be compared.
    """
    if "case" in results.columns:
        return results
    rows = worded(results)
    if rows["protocol"].nunique() > 1:
        versions = ", ".join(sorted(rows["protocol"].unique(), key=_version))
        raise UsageError(
            f"results of several protocols ({versions}) cannot be compared: choose the rows of one protocol"
        )
    rows["state"] = _states(rows)
    rows["label"] = ""
    rows["slice"] = ""
    for _, group in rows.groupby(CONTENDER, sort=False):
        shapes, first = _shapes(group), group.iloc[0]
        rows.loc[group.index, "slice"] = shapes
        for _, same in group.groupby(shapes, sort=False):
            name = label(first["rule"], first["variant"], first["predictor"])
            rows.loc[same.index, "label"] = name + _settings(same)
    parts = []
    for task, group in rows.groupby("task", sort=False):
        slices = [s for s in group.sort_values(SHAPE, kind="stable")["slice"].unique() if s]
        for name in slices or [""]:
            part = group[group["slice"].isin(["", name])]
            parts.append(part.assign(case=f"{task} · {name}" if name else str(task)))
    return pd.concat(parts, ignore_index=True) if parts else rows.assign(case="")


def worded(results: pd.DataFrame) -> pd.DataFrame:
    """A copy in which a missing word is "" and not NaN."""
    rows = results.copy()
    for column in WORDS:
        if column in rows:
            rows[column] = rows[column].astype(object).where(rows[column].notna(), "").astype(str)
    return rows


def _version(text: str) -> list[tuple[int, int, str]]:
    """1.10 comes after 1.9; words come before numbers."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in str(text).split(".")]


def _split(rows: pd.DataFrame, keep: pd.Series[bool]) -> tuple[pd.DataFrame, int]:
    return rows[keep], int((~keep).sum())


def _states(rows: pd.DataFrame) -> pd.Series[str]:
    """The status of the whole run, on each of its rows."""
    state = pd.Series("ok", index=rows.index)
    silent = rows["status"].eq("no readout yet")
    latest = rows.groupby(["run", "predictor"])["samples"].transform("max")
    unread = (silent & rows["samples"].eq(latest)).groupby([rows["run"], rows["predictor"]]).transform("any")
    state[unread] = "no readout yet"
    for status in reversed(TROUBLE):
        state[rows["status"].eq(status).groupby(rows["run"]).transform("any")] = status
    return state


def _shapes(group: pd.DataFrame) -> pd.Series[str]:
    """What tells the shapes of one contender apart: "depth 4", "conv", or "" where there is only one."""
    words = pd.Series("", index=group.index)
    if group["net"].nunique() > 1:
        words = words + group["net"]
    if group["depth"].nunique() > 1:
        words = words.where(words.eq(""), words + ", ") + "depth " + group["depth"].map("{:g}".format)
    return words


def _settings(group: pd.DataFrame) -> pd.Series[str]:
    """What tells the settings of one contender in one case apart: ", lr=0.1", or "" where there is only one."""
    words = pd.Series("", index=group.index)
    for column in SETTING:
        if column in group and group[column].astype(str).nunique() > 1:
            words = words + ", " + column.replace("_", " ") + " " + group[column].map(_short)
    if group["hyperparameters"].nunique() > 1:
        chosen = {text: _parsed(text) for text in group["hyperparameters"].unique()}
        names = sorted({name for values in chosen.values() for name in values})
        differ = [name for name in names if len({_short(values.get(name)) for values in chosen.values()}) > 1]
        said = {text: "".join(f", {n}={_short(values.get(n))}" for n in differ) for text, values in chosen.items()}
        words = words + group["hyperparameters"].map(said)
    return words


def _parsed(text: str) -> dict[str, Any]:
    """Hyperparameters by their last name; nested ones are lifted out."""
    flat: dict[str, Any] = {}
    waiting = list(json.loads(text).items()) if text else []
    while waiting:
        name, value = waiting.pop()
        waiting += value.items() if isinstance(value, dict) else []
        flat |= {} if isinstance(value, dict) else {name: value}
    return flat


def _short(value: object) -> str:
    if isinstance(value, float):
        return "any" if value != value else f"{value:g}"
    return "default" if value in (None, "") else str(value)
