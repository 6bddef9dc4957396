"""Evaluation: every predictor of a rule on train, validation and test; never trains, never on the training clock."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from altprop.bench import protocol
from altprop.rule import Rule
from altprop.tasks import Split, Task

BATCH, IMAGES = 1000, 100
"""Samples at once: of flat inputs, and of images, whose activities are large: more of them fall out of the cache."""


@torch.no_grad()
def evaluate(rule: Rule, task: Task, device: torch.device) -> list[dict[str, Any]]:
    """One point a predictor and split: accuracy in [0, 1], NaN where a score is not finite.

    A rule that cannot predict yet has no predictors: its point has no value, and says so.
    """
    rule.eval()
    predictors = rule.predictors()
    if not predictors:
        return [{"predictor": "", "split": "test", "value": None, "status": "no readout yet"}]
    return [
        {"predictor": name, "split": split, "value": accuracy(predict, getattr(task, split), limit, device)}
        for name, predict in predictors.items()
        for split, limit in (("train", protocol.TRAIN_EVALUATED), ("validation", None), ("test", None))
    ]


class Scores(NamedTuple):
    """Accuracies of one predictor; 0 where its scores are not finite."""

    validation: float
    test: float


@torch.no_grad()
def scores(rule: Rule, task: Task) -> Scores:
    """Those of the predictor that does best on validation."""
    rule.eval()
    found = []
    for predict in rule.predictors().values():
        each = (accuracy(predict, split, None, torch.device("cpu")) for split in (task.validation, task.test))
        found.append(Scores(*(0.0 if math.isnan(score) else score for score in each)))
    return max(found, key=lambda each: each.validation)


def accuracy(predict: Callable[[Tensor], Tensor], split: Split, limit: int | None, device: torch.device) -> float:
    """The share of the split's first `limit` samples whose highest score is at the true class."""
    size = min(len(split), limit or len(split))
    step = IMAGES if split.x.ndim > 2 else BATCH
    right = 0
    for start in range(0, size, step):
        x, y = (t.to(device) for t in split.batch(slice(start, min(size, start + step))))
        scores = predict(x)
        if not bool(torch.isfinite(scores).all()):
            return float("nan")
        right += int((scores.argmax(1) == y).sum())
    return right / size
