"""A contender on a stream: the training split once, every batch answered before it is learned from.

Points are taken every 1,000 samples, under the split "stream": "accuracy" is that of the last 1,000 answers. The last
point also has the accuracy of the last 10,000 and of all answers, and the delays: in seconds and in seconds of the
processor (which other programs do not lengthen), each measured in every other step, as median and 95th percentile; and
in operations, counted in one step. Train, validation and test are looked at before the first sample and after the last.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from altprop.analysis.trace import Trace
from altprop.bench import meter, protocol
from altprop.bench.answer import Answer, Answering, unfit
from altprop.bench.store import Store
from altprop.bench.train import Plan, Run
from altprop.errors import Diverged
from altprop.rule import Metrics, Rule

WINDOW, LAST = 1_000, 10_000
MODE = SPLIT = "stream"
OF_LAST, OF_ALL = f"accuracy of the last {LAST:,}", "accuracy of all"
ONE_PASS, GAP = "share answered in one pass", "largest difference of an answer to the prediction"
SECONDS, PROCESSOR, OPERATIONS = "seconds to ", "processor seconds to ", "operations to "
"""A delay's metric: one of these, and what it is the delay of ("answer", or a part that was updated)."""
MEDIAN, HIGH = "median ", "95th percentile of "
"""What stands before seconds."""


@dataclass(frozen=True)
class StreamPlan(Plan):
    """One run over a stream."""

    def key(self) -> str:
        return hashlib.sha256(f"stream {super().key()}".encode()).hexdigest()

    def details(self) -> dict[str, Any]:
        return {**super().details(), "mode": MODE}

    def unfit(self) -> str | None:
        return unfit(self.contender.build(self.setting, self.seed), self.batch_size)

    def run(self, store: Store, run: int, saved: str | None) -> "StreamRun":
        return StreamRun(self, store, run, saved)


class StreamRun(Run):
    """A stream being answered and learned from.

    One that was stopped goes on from its last point, to the same answers; how the rule answers is then found out anew.
    """

    def __init__(self, plan: Plan, store: Store, run: int, saved: str | None) -> None:
        self.right: list[bool] = []
        self.delays: dict[str, list[float]] = {}
        self.costs: dict[str, float] = {}
        self.overheard, self.gap = 0, 0.0
        super().__init__(plan, store, run, saved)
        self.answering = Answering(self.rule)

    def _step(self, x: Tensor, y: Tensor) -> Metrics:
        answer = self._answer(x, y)
        if not bool(torch.isfinite(answer.scores).all()):
            raise Diverged(f"the scores were not finite after {self.samples:,} samples")
        self.right += answer.right.tolist()
        self.gap = max(self.gap, self.answering.gap)
        if answer.one_pass:
            self.overheard += len(y)
        else:
            self.operations += round(self.forward * len(y))
        return answer.metrics

    def _answer(self, x: Tensor, y: Tensor) -> Answer:
        """Once it is known how the rule answers, one step's delays are counted; those of all others are timed."""
        if self.answering.settled and not self.costs:
            with Trace(meter.named_tensors(self.rule)) as trace:
                answer = self.answering.step(x, y, lambda: float(trace.operations))
            self.costs = dict(answer.delays)
            return answer
        kind, now = (SECONDS, None) if self.samples // len(y) % 2 else (PROCESSOR, time.thread_time)
        answer = self.answering.step(x, y, now)
        for event, delay in answer.delays.items() if not answer.checked else ():
            self.delays.setdefault(kind + event, []).append(delay)
        return answer

    def _due(self, before: int) -> bool:
        """Every 1,000 samples, at the marks of a first epoch, and at the end."""
        marked = any(before < mark <= self.samples for mark in protocol.marks(len(self.plan.task.train)))
        return marked or before // WINDOW != self.samples // WINDOW or self._progress() >= 1.0

    def _points(self) -> list[dict[str, Any]]:
        over = self._progress() >= 1.0
        evaluated = super()._points() if over or self.samples == 0 else []
        heard = {"accuracy": share(self.right[-WINDOW:])} if self.samples else {}
        if over:
            heard |= {OF_LAST: share(self.right[-LAST:]), OF_ALL: share(self.right)}
            heard |= {ONE_PASS: self.overheard / self.samples, GAP: self.gap} | self._delays()
        same = {"predictor": answering_by(self.rule), "split": SPLIT}
        return evaluated + [{**same, "metric": metric, "value": value} for metric, value in heard.items()]

    def _delays(self) -> dict[str, float]:
        """By metric."""
        found = {}
        for name, delays in self.delays.items():
            found[MEDIAN + name], found[HIGH + name] = (float(np.percentile(delays, q)) for q in (50, 95))
        return found | {OPERATIONS + event: cost for event, cost in self.costs.items()}

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, state = super()._state()
        delays = {f"stream.delays.{event}": torch.tensor(found) for event, found in self.delays.items()}
        so_far = {"costs": self.costs, "overheard": self.overheard, "gap": self.gap, "forward": self.forward}
        return {**tensors, **delays, "stream.right": torch.tensor(self.right)}, {**state, "stream": so_far}

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        own = {name: tensors.pop(name).tolist() for name in list(tensors) if name.startswith("stream.")}
        super()._restore(tensors, state)
        self.right = own.pop("stream.right")
        self.delays = {name.removeprefix("stream.delays."): found for name, found in own.items()}
        so_far = state["stream"]
        self.costs, self.overheard, self.forward = so_far["costs"], so_far["overheard"], so_far["forward"]
        self.gap = so_far.get("gap", 0.0)  # streams saved by older versions have none


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


def answering_by(rule: Rule) -> str:
    """The name of the predictor that a rule answers by, which is its `forward`."""
    return next((name for name, predict in rule.predictors().items() if predict == rule.forward), "")
