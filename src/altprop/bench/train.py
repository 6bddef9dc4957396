"""The only training loop: one contender, one seed, from where the store says that it stands to its end."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from altprop.bench import checkpoint, meter, protocol
from altprop.bench.contender import Contender, Setting
from altprop.bench.evaluate import evaluate
from altprop.bench.protocol import Budget
from altprop.bench.source import source_hash
from altprop.bench.store import Store
from altprop.errors import Diverged, UsageError, UsageWarning, heard
from altprop.rule import Metrics, Rule
from altprop.tasks import Task, jitter, order

UNSETTLED = 0.1
"""The share of an epoch's steps whose relaxation may fall short of its tolerance without a word in the table."""


@dataclass(frozen=True)
class Process:
    """The process's settings during a run; the runner sets and restores them."""

    device: str = "cpu"
    threads: int = 1
    precision: str = "highest"

    @contextmanager
    def applied(self, seed: int) -> Iterator[None]:
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # our code never draws from it; a user's module may
            torch.set_num_threads(self.threads)
            torch.set_float32_matmul_precision(self.precision)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
                torch.set_float32_matmul_precision(precision)


@dataclass(frozen=True)
class Plan:
    """One run: what is trained, on what, for how long."""

    contender: Contender
    setting: Setting
    task: Task
    seed: int
    budget: Budget
    batch_size: int
    process: Process
    command: str = ""

    def run(self, store: Store, run: int, saved: str | None) -> "Run":
        """The plan being carried out, from the checkpoint of that name."""
        return Run(self, store, run, saved)

    def unfit(self) -> str | None:
        """Why the rule cannot learn in batches as they are planned, in words; None if it can."""
        return None

    def source_hash(self) -> str:
        return source_hash(self.contender.rule)

    def key(self) -> str:
        """What makes two runs the same one; thread count and device do not, so a run goes on elsewhere."""
        identity = (
            protocol.VERSION,
            self.task.digest,
            self.contender.label,
            self.contender.hyperparameters(),
            (self.setting.net, self.setting.depth, self.setting.width),
            (self.seed, self.batch_size, self.process.precision),
            (self.budget.epochs, self.budget.samples, self.budget.seconds),
            self.source_hash(),
            *(() if self.budget.curve else ("start and end",)),
        )
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def columns(self) -> dict[str, Any]:
        setting, contender = self.setting, self.contender
        shown = {"task": setting.task, "rule": contender.rule, "variant": contender.variant}
        shown["net"] = contender.net or setting.net
        return {**shown, "depth": setting.depth, "width": setting.width, "seed": self.seed}

    def details(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "epochs": self.budget.epochs,
            "samples_planned": self.budget.samples,
            "seconds_planned": self.budget.seconds,
            "chance": 1 / self.task.classes,
            "task_note": self.task.note,
            "threads": self.process.threads,
            "precision": self.process.precision,
            "device": self.process.device,
            "protocol": protocol.VERSION,
            "source_hash": self.source_hash(),
            "hyperparameters": json.dumps(self.contender.hyperparameters()),
            "card": json.dumps(vars(self.contender.card)),
            "machine": json.dumps(meter.machine()),
            "versions": json.dumps(meter.versions()),
            "command": self.command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }


@dataclass
class Mean:
    """A weighted mean of what was added."""

    total: float = 0.0
    weight: int = 0

    def add(self, value: float, weight: int) -> None:
        self.total, self.weight = self.total + value * weight, self.weight + weight


class Run:
    """A plan being carried out: the rule, and where it stands. `advance` is called with the run's progress."""

    def __init__(self, plan: Plan, store: Store, run: int, saved: str | None) -> None:
        self.plan, self.store, self.id = plan, store, run
        self.folder = store.path.with_suffix(store.path.suffix + ".checkpoints")
        self.device = torch.device(plan.process.device)
        self.said: list[str] = []
        with heard(self._hear):
            self.rule: Rule = plan.contender.build(plan.setting, plan.seed).to(self.device)
        self.clock, self.finishing = meter.Clock(), meter.Clock()
        self.epoch = -1
        self.samples, self.operations, self.peak = 0, 0, 0
        self.per_sample, self.forward = 0.0, 0.0
        self.losses, self.unsettled = Mean(), Mean()
        self.saved = saved
        if saved is not None and (self.folder / saved).exists():
            self._restore(*checkpoint.read(self.folder / saved))

    def train(self, advance: Callable[[float], None]) -> None:
        """To the end of the budget; points and checkpoints go to the store as they come."""
        with heard(self._hear):
            self._train(advance)
        self._end("ok", self._remark())

    def _train(self, advance: Callable[[float], None]) -> None:
        if self.samples == 0:
            self._measure()
        while (progress := self._progress()) < 1.0:
            x, y = self._batch()
            self.rule.progress = progress
            if self.samples % len(self.plan.task.train) == 0:
                self._count(x, y)
                self.losses, self.unsettled = Mean(), Mean()
            with self.clock.running(self.device):
                metrics = self._step(x, y)
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                raise Diverged(f"the loss was {loss} after {self.samples + len(y):,} samples")
            self.losses.add(loss, len(y))
            if "unsettled" in metrics:
                self.unsettled.add(float(metrics["unsettled"]), len(y))
            before, self.samples = self.samples, self.samples + len(y)
            self.operations += round(self.per_sample * len(y))
            if self._due(before):
                self._measure()
            advance(self._progress())

    def _hear(self, warning: UsageWarning) -> None:
        """What the rule warns of is for the table, once."""
        if str(warning) not in self.said:
            self.said.append(str(warning))

    def _remark(self) -> str:
        """What a reader of the table should know of the last epoch, and what the rule warned of, in words."""
        share = self.unsettled.total / max(self.unsettled.weight, 1)
        unsettled = [f"in {share:.0%} of its last steps states did not settle"] if share > UNSETTLED else []
        return "; ".join(unsettled + self.said)

    def _step(self, x: Tensor, y: Tensor) -> Metrics:
        return self.rule.step(x, y)

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The samples that come next, moved about where the contender has jitter; both off the clock."""
        task, pixels, seed = self.plan.task, self.plan.contender.jitter, protocol.seed_of("data", self.plan.seed)
        epoch, place = divmod(self.samples, len(task.train))
        if self.epoch != epoch:
            self.epoch = epoch
            self.order = order(len(task.train), seed, epoch)
            self.offsets = jitter.offsets(len(task.train), pixels, seed, epoch) if pixels else None
        here = slice(place, place + self.plan.batch_size)
        x, y = task.train.batch(self.order[here])
        if self.offsets is not None:
            x = jitter.moved(x, self.offsets[here], pixels, task.image)
        return x.to(self.device), y.to(self.device)

    def _progress(self) -> float:
        return self.plan.budget.progress(self.samples, self.clock.wall, len(self.plan.task.train))

    def _due(self, before: int) -> bool:
        """Whether a point lies between `before` and now: a mark in the first epoch, an epoch's end, the run's end."""
        size = len(self.plan.task.train)
        if not self.plan.budget.curve:
            return self._progress() >= 1.0
        if self.samples % size == 0 or self._progress() >= 1.0:
            return True
        return self.samples < size and any(before < mark <= self.samples for mark in protocol.marks(size))

    def _count(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Once an epoch (a rule may change its work with progress): operations and peak bytes, off the clock."""
        cost = meter.cost(self.rule, x, y)
        self.per_sample, self.forward = cost.step_operations / len(x), cost.forward_operations / len(x)
        self.peak = max(self.peak, cost.peak_step_bytes)
        self.store.save_details(
            self.id,
            {
                "parameters": cost.parameters,
                "parameters_inference": cost.parameters_inference,
                "forward_operations": self.forward,
                "peak_step_bytes": self.peak,
            },
        )

    def _measure(self) -> None:
        """Evaluate, and store the points together with the name of the checkpoint that they belong to."""
        with self.clock.running(self.device), self.finishing.running(self.device):
            self.rule.finish()
        common = {
            "samples": self.samples,
            "epoch": self.samples / len(self.plan.task.train),
            "train_seconds": self.clock.wall,
            "cpu_seconds": self.clock.cpu,
            "finish_seconds": self.finishing.wall,
            "operations": self.operations,
            "load": meter.load_average(),
            "metric": "accuracy",
        }
        points = [{**common, **point} for point in self._points()]
        name = f"{self.id}-{self.samples}.safetensors"
        checkpoint.write(self.folder / name, *self._state())
        if self.samples:  # the mean so far: a rule may do less, or more, as it progresses
            self.store.save_details(self.id, {"operations_per_sample": self.operations / self.samples})
        self.store.save(self.id, points, checkpoint=name)
        self._discard(keep=name)
        if any(point["value"] is not None and not math.isfinite(point["value"]) for point in points):
            raise Diverged(f"the scores were not finite after {self.samples:,} samples")

    def _points(self) -> list[dict[str, Any]]:
        """Accuracies as they are now, and the mean training loss of the epoch so far."""
        points = evaluate(self.rule, self.plan.task, self.device)
        if self.losses.weight:
            loss = self.losses.total / self.losses.weight
            points.append({**points[0], "split": "train", "metric": "loss", "value": loss, "status": ""})
        return points

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        state = self.rule.training_state()
        tensors = {f"rule.{name}": value.cpu() for name, value in state["tensors"].items()}
        tensors["random"] = torch.get_rng_state()
        position = {
            "samples": self.samples,
            "operations": self.operations,
            "per_sample": self.per_sample,
            "peak": self.peak,
            "losses": vars(self.losses),
            "unsettled": vars(self.unsettled),
            "said": self.said,
            "clock": vars(self.clock),
            "finishing": vars(self.finishing),
        }
        return tensors, {"key": self.plan.key(), "rule": state["json"], "position": position}

    def _restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        if state["key"] != self.plan.key():
            raise UsageError(
                f"the checkpoint {self.folder / str(self.saved)} belongs to another run; delete it to start anew"
            )
        torch.set_rng_state(tensors.pop("random"))
        rule = {name.removeprefix("rule."): value for name, value in tensors.items()}
        self.rule.load_training_state({"tensors": rule, "json": state["rule"]})
        position = state["position"]
        self.samples, self.operations = position["samples"], position["operations"]
        self.per_sample, self.peak = position["per_sample"], position["peak"]
        for name in ("losses", "unsettled"):  # runs saved by older versions may have none, and nothing said
            setattr(self, name, Mean(**position.get(name, {})))
        self.said = position.get("said", [])
        self.clock, self.finishing = meter.Clock(**position["clock"]), meter.Clock(**position["finishing"])

    def stop(self, status: str, reason: str = "") -> None:
        """Leave the run as it stands: diverged (for good) or interrupted (to go on later)."""
        if status == "interrupted":
            self.store.set_status(self.id, status, reason)
        else:
            self._end(status, reason)

    def _end(self, status: str, reason: str = "") -> None:
        self.store.save(self.id, [], status=status, reason=reason)
        self._discard(keep=None)

    def _discard(self, keep: str | None) -> None:
        for file in self.folder.glob(f"{self.id}-*"):
            if file.name != keep:
                file.unlink(missing_ok=True)
