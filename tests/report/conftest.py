"""Invented results, shaped as the store gives them: rules, seeds, splits, and every way in which a run can end."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

CONTENDERS = [  # rule, variant, predictors, accuracy at the end, speed, cost against backprop
    ("backprop", "", ("",), 0.981, 1.0, 1.0),
    ("backprop", "linear", ("",), 0.921, 2.0, 0.05),
    ("backprop", "frozen", ("",), 0.952, 0.9, 0.4),
    ("backprop", "on the net of forward-forward", ("",), 0.979, 0.9, 1.4),
    ("forward-forward", "", ("head", "energy"), 0.978, 0.35, 2.6),
    ("signal-propagation", "", ("nearest target", "output layer"), 0.974, 0.6, 1.3),
    ("direct-feedback-alignment", "", ("",), 0.972, 0.5, 0.8),
    ("predictive-coding", "", ("",), 0.971, 0.45, 6.0),
    ("soft-wta", "", ("",), 0.963, 0.7, 1.9),
]
CLAIMS = ["uses later blocks", "forward lock", "update lock", "memory against depth", "needs labels"]


def run(
    number: int, task: str, contender: tuple[Any, ...], seed: int, depth: int, end: str = "ok"
) -> list[dict[str, Any]]:
    """The rows of one run that ends in the status `end`."""
    rule, variant, predictors, best, speed, cost = contender
    draw = np.random.default_rng([number, seed])
    train, batch = 50_000, 128
    best -= 0.012 * (depth > 4) + draw.normal(0, 0.0012) + 0.05 * (task == "cifar10")
    fixed = {
        "run": number, "task": task, "rule": rule, "variant": variant, "net": "mlp", "depth": depth,
        "width": 1000 // depth, "seed": seed, "status": end, "reason": "", "parameters": 669_706 + 1000 * len(rule),
        "parameters_inference": 669_706, "operations_per_sample": 4e6 * cost, "forward_operations": 1.3e6,
        "peak_step_bytes": int(2.1e6 * (depth if rule in ("backprop", "predictive-coding") else 2)),
        "batch_size": batch, "epochs": 10, "samples_planned": None, "seconds_planned": None,
        "threads": 1, "precision": "highest", "device": "cpu", "protocol": "1.0",
        "source_hash": f"{len(rule):016x}",
        "hyperparameters": json.dumps({"widths": [1000 // depth] * depth, "lr": 1e-3}),
        "card": json.dumps({"activation": "relu", "label_in_input": rule == "forward-forward",
                            "tuning": "learning rate chosen on validation, one seed, among 3e-4, 1e-3 and 3e-3",
                            "note": "hard negatives" if rule == "forward-forward" else ""}),
        "machine": json.dumps({"cpu": "Example CPU", "cores": 2, "memory": "16 GB"}),
        "versions": json.dumps({"altprop": "0.1.0", "python": "3.11", "torch": "2.13.0"}),
        "command": f"altprop compare --task {task} --seeds 3 --epochs 10",
        "started": f"2026-11-20T10:{number // 60:02d}:{number % 60:02d}+00:00",
    }  # fmt: skip
    marks = [0, 500, 1000, 2000, 5000, 10_000, 20_000, *range(train, 10 * train + 1, train)]
    if end == "diverged":
        fixed["reason"] = "the loss is not finite after 23,040 samples"
        marks = marks[:7]
    if end == "running":
        marks = marks[:10]
    if end == "unsupported":
        fixed["reason"] = "needs one-dimensional inputs"
        return [fixed | dict.fromkeys(("predictor", "split", "metric", "value", "samples", "epoch"))]
    rows = []
    for samples in marks:
        reached = 0.1 + (best - 0.1) * (1 - math.exp(-((samples * speed / 2500) ** 0.55)))
        seconds = samples / 9000 * (cost**0.7) * draw.uniform(0.97, 1.03)
        at = {"samples": samples, "epoch": samples / train, "train_seconds": seconds, "cpu_seconds": seconds,
              "load": 1.2, "operations": int(samples * 4e6 * cost), "finish_seconds": 0.0}  # fmt: skip
        for predictor in predictors:
            for split, shift in (("train", 0.012 * reached), ("validation", 0.001), ("test", 0.0)):
                unread = rule == "soft-wta" and samples < 5000
                noise = draw.normal(0, 0.006 * (1.05 - reached)) - 0.004 * (predictor == "energy")
                value = math.nan if unread else min(reached + shift + noise, 1.0)
                status = {"status": "no readout yet"} if unread else {}
                rows.append(
                    fixed | at | {"predictor": predictor, "split": split, "metric": "accuracy", "value": value} | status
                )
    return rows


def table(task: str = "mnist", depths: tuple[int, ...] = (2,), seeds: int = 3, first: int = 1) -> pd.DataFrame:
    """All contenders; direct feedback alignment diverges on one seed, predictive coding is still running on another."""
    rows: list[dict[str, Any]] = []
    number = first
    for seed in range(seeds):
        for depth in depths:
            for contender in CONTENDERS:
                end = {("direct-feedback-alignment", 1): "diverged", ("predictive-coding", 2): "running"}
                rows += run(number, task, contender, seed, depth, end.get((contender[0], seed), "ok"))
                number += 1
            rows += run(number, task, ("soft-wta", "on conv", ("",), 0, 0, 0), seed, depth, "unsupported")
            number += 1
    return pd.DataFrame(rows)


def claims() -> pd.DataFrame:
    rows = []
    for rule in dict.fromkeys(contender[0] for contender in CONTENDERS):
        for claim in CLAIMS:
            local = rule not in ("backprop", "predictive-coding")
            holds = not (rule == "soft-wta" and claim == "needs labels")
            words = {
                "uses later blocks": "none" if local else "all",
                "memory against depth": "flat" if local else "grows",
                "needs labels": "no" if rule == "soft-wta" else "yes",
            }.get(claim, "free" if local else "locked")
            measured = words if holds else "yes: the readout cannot learn without them"
            rows.append({"rule": rule, "variant": "", "source_hash": "0", "claim": claim, "claimed": words,
                         "measured": measured, "holds": holds})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def results() -> pd.DataFrame:
    """Two tasks, one of them at depths 2, 4 and 8."""
    two = table("mnist")
    return pd.concat([two, table("cifar10", (2, 4, 8), first=1000)], ignore_index=True)


@pytest.fixture(scope="session")
def one_task() -> pd.DataFrame:
    return table()


@pytest.fixture(scope="session")
def audits() -> pd.DataFrame:
    return claims()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, or a skip that says what is missing."""
    import shutil

    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the path")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
