"""What the page shows, as plain values that JSON can hold: tables as columns, numbers that are not there as null."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from altprop.bench import cases, stats
from altprop.report import colours, depths, leaderboard, words

SPLITS = ("test", "validation", "train")
CURVE = ["case", "label", "epoch", *stats.MEASURES.values(), "mean", "low", "high", "seeds"]
SEED = ["case", "label", "seed", *stats.MEASURES.values(), "value"]


def content(results: pd.DataFrame, audits: pd.DataFrame, figures: Iterable[str] = ()) -> dict[str, Any]:
    """Everything on the page. `results` as the store gives them; rows that cannot be compared are left out, and said.

    figures: file names beside the page that it links to.
    """
    rows, notes = cases.newest(results)
    arranged = cases.arrange(rows)
    drawn = colours.styles(zip(arranged["rule"], arranged["label"], strict=True))
    return {
        "notes": notes,
        "protocol": ", ".join(sorted(rows["protocol"].unique())),
        "interval": stats.INTERVAL_METHOD,
        "cases": _summaries(arranged),
        "styles": {name: {"colour": s.colour, "dash": s.dash[0], "marker": s.marker[0]} for name, s in drawn.items()},
        "board": records(leaderboard.frame(arranged)),
        "curves": {split: columns(stats.curves(arranged, split)[CURVE]) for split in SPLITS},
        "seeds": {split: columns(_points(arranged, split)) for split in SPLITS},
        "finals": {split: columns(_finals(arranged, split)) for split in SPLITS},
        "targets": records(stats.targets(arranged)),
        "times": _times(arranged),
        "profile": {measure: columns(stats.performance_profile(arranged, measure)) for measure in stats.MEASURES},
        "depths": records(depths.frame(arranged)),
        "cards": _cards(arranged),
        "audits": _audits(audits),
        "raw": columns(rows),
        "commands": [text for text in rows["command"].unique() if text],
        "machines": _opened(rows["machine"]),
        "versions": _opened(rows["versions"]),
        "figures": list(figures),
    }


def columns(frame: pd.DataFrame) -> dict[str, Any]:
    """A table as columns; one that repeats itself as its different values and a code a row: the page stays small."""
    packed: dict[str, Any] = {}
    for name in frame.columns:
        codes, different = pd.factorize(frame[name].astype(object), use_na_sentinel=False)
        values = [plain(value) for value in different]
        if len(values) * 4 < len(codes):
            packed[str(name)] = {"words": values, "codes": codes.tolist()}
        else:
            packed[str(name)] = [values[code] for code in codes]
    return {"length": len(frame), "columns": packed}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A small table as one object a row."""
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """A value that JSON can hold; what is missing or not finite becomes None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.8g}")
    return value if isinstance(value, bool | int | str) else str(value)


def _summaries(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "task": group["task"].iloc[0],
            "contenders": int(group["label"].nunique()),
            "seeds": int(group["seed"].nunique()),
            "epochs": plain(group["epochs"].max()),
            "samples": plain(group["samples"].max()),
            "note": "; ".join(text for text in group["task_note"].unique() if text) if "task_note" in group else "",
        }
        for name, group in rows.groupby("case", sort=False)
    ]


def _points(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    points = stats.accuracies(rows, split)
    return points.loc[points["value"].notna(), SEED]


def _finals(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    last = stats.final(rows, split)
    return last[["case", "label", "seed", "value", "state", "reason"]]


def _times(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """For each case, contender and target: the median cost over seeds, and the outcomes in words."""
    found = []
    for (case, label, share), group in stats.time_to_target(rows).groupby(["case", "label", "share"], sort=False):
        missed = group.loc[group["outcome"] != stats.REACHED, "outcome"].value_counts()
        found.append({
            "case": case, "label": label, "share": share,
            "seeds": len(group), "reached": int(len(group) - missed.sum()),
            "missed": ", ".join(missed.index) if len(missed) else "",
            **{measure: plain(stats.median_cost(group[measure])) for measure in stats.MEASURES},
        })  # fmt: skip
    return found


def _cards(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A fairness card a case and contender."""
    found = []
    for (case, label), group in rows.sort_values("samples", na_position="first").groupby(["case", "label"], sort=False):
        last = group.iloc[-1]
        forward = last["operations_per_sample"] / last["forward_operations"] if last["forward_operations"] else math.nan
        found.append({
            "case": case, "label": label, **(json.loads(last["card"]) if last["card"] else {}),
            **{name: plain(last[name]) for name in ("parameters", "parameters_inference", "operations_per_sample")},
            "forward_passes": plain(forward), "status": words.status(stats.final(group)),
            "hyperparameters": last["hyperparameters"], "source_hash": last["source_hash"],
        })  # fmt: skip
    return found


def _audits(audits: pd.DataFrame) -> dict[str, Any]:
    """One row a rule, one column a claim; of several audits of one rule, the last."""
    table: dict[str, dict[str, Any]] = {}
    audits = cases.worded(audits)
    for row in audits.to_dict("records"):
        cells = table.setdefault(cases.label(row["rule"], row["variant"]), {"rule": row["rule"], "cells": {}})["cells"]
        cells[row["claim"]] = {name: plain(row[name]) for name in ("claimed", "measured", "holds")}
    rows = [{"label": label, "colour": colours.colour(row["rule"]), **row} for label, row in sorted(table.items())]
    return {"claims": list(dict.fromkeys(audits["claim"])), "rows": rows}


def _opened(texts: pd.Series) -> list[dict[str, str]]:
    """The different JSON objects of a column, each as words."""
    return [{str(k): str(v) for k, v in json.loads(text).items()} for text in texts.unique() if text]
