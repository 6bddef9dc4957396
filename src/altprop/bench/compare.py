"""Compare rules: plan every run, carry out those that the store does not have, audit the claims, give the results."""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from filelock import FileLock, Timeout

from altprop import rules, tasks
from altprop.bench import protocol
from altprop.bench.audits import audit_all
from altprop.bench.contender import IMAGES, Contender, Setting, hidden, network
from altprop.bench.contenders import contender, controls, net_of
from altprop.bench.overrides import override
from altprop.bench.prequential import StreamPlan
from altprop.bench.protocol import Budget
from altprop.bench.store import Store, default_path
from altprop.bench.streamed import streamed
from altprop.bench.train import Plan, Process
from altprop.catalogue import NETS
from altprop.errors import Diverged, UsageError
from altprop.tasks import Task, jitter


@runtime_checkable
class Observer(Protocol):
    """Who is told how a comparison goes: the terminal, or nobody."""

    def plan(self, runs: int) -> None: ...
    def start(self, label: str, seed: int, depth: int) -> None: ...
    def advance(self, progress: float) -> None: ...
    def end(self, label: str, seed: int, status: str, reason: str) -> None: ...


class Silent:
    """An observer that says nothing."""

    def plan(self, runs: int) -> None: ...
    def start(self, label: str, seed: int, depth: int) -> None: ...
    def advance(self, progress: float) -> None: ...
    def end(self, label: str, seed: int, status: str, reason: str) -> None: ...


def compare(
    task: str | Task = "digits",
    names: Sequence[str] | None = None,
    *,
    seeds: int = protocol.DEFAULT_SEEDS,
    epochs: int | None = None,
    samples: int | None = None,
    seconds: float | None = None,
    net: str = "mlp",
    width: int | None = None,
    depth: Sequence[int] = (protocol.DEFAULT_DEPTH,),
    batch_size: int | None = None,
    settings: Sequence[str] = (),
    stream: bool = False,
    device: str = "cpu",
    threads: int = 1,
    precision: str = "highest",
    store: Path | str | None = None,
    command: str = "",
    observer: Observer | None = None,
) -> pd.DataFrame:
    """Train every named rule (all, if none is named) and the controls, and return every stored point.

    Runs that the store holds are skipped; one that was killed goes on from its last checkpoint. Backprop and the
    controls are always there. stream: the data once, one sample (or batch_size) at a time, answered before it is
    learned from. Raises UsageError for what cannot be; what was measured before is in the store.
    """
    _check(net, seeds, depth, width, batch_size, threads, device, precision)
    data = tasks.load(task) if isinstance(task, str) else task
    if stream:
        epochs = _once(data, epochs, samples, seconds)
    budget = Budget(_epochs(data.name, epochs, samples, seconds), samples, seconds)
    process = Process(device, threads, precision)
    plans = [
        made
        for seed in range(seeds)  # outermost, so that rules are interleaved in time
        for setting in _settings(shaped(data, net), net, width, depth)
        for c in _contenders(names, setting, settings, data, (batch_size or 1) if stream else None)
        for made in [plan(c, setting, data, seed, budget, process, command, batch_size, StreamPlan if stream else Plan)]
    ]
    return carry_out(plans, store if store is not None else default_path(), observer)


def plan(
    c: Contender,
    setting: Setting,
    task: Task,
    seed: int,
    budget: Budget,
    process: Process,
    command: str = "",
    batch_size: int | None = None,
    kind: type[Plan] = Plan,
) -> Plan:
    """One contender's run, with the data in the shape that its net takes. Raises UsageError where the task has none
    in that shape, or where its inputs cannot be moved by the contender's jitter."""
    if c.jitter:
        jitter.check(c.jitter, task.image)
    data = shaped(task, c.net or setting.net)
    size = batch_size or c.batch_size or default_batch_size(data)
    return kind(c, fitted(c, setting, task), data, seed, budget, size, process, command)


def fitted(c: Contender, setting: Setting, task: Task) -> Setting:
    """The setting with its problem in the shape that the contender's net takes."""
    return replace(setting, problem=shaped(task, c.net or setting.net).problem)


def shaped(task: Task, net: str) -> Task:
    """The task as a kind of net takes it: images, or vectors."""
    return task.images() if net in IMAGES else task.flat()


def carry_out(plans: Sequence[Plan], store: Path | str, observer: Observer | None = None) -> pd.DataFrame:
    """Every run that the store does not have yet, then the audit of the rules; returns every stored point."""
    opened = Store(store)
    try:
        _carry_out(plans, opened, observer or Silent())
        audit_all(opened, {plan.contender.rule for plan in plans})
        return opened.results()
    finally:
        opened.close()


def measured(plans: Sequence[Plan], frame: pd.DataFrame, store: Path | str) -> pd.DataFrame:
    """Those of the stored points that belong to the plans."""
    opened = Store(store)
    try:
        found = [opened.run(plan.key()) for plan in plans]
    finally:
        opened.close()
    return frame[frame["run"].isin([run["id"] for run in found if run is not None])]


def default_batch_size(task: Task) -> int:
    return protocol.BATCH_SIZE.get(task.name, protocol.DEFAULT_BATCH_SIZE)


def _epochs(task: str, epochs: int | None, samples: int | None, seconds: float | None) -> int | None:
    if (epochs, samples, seconds) == (None, None, None):
        return protocol.EPOCHS.get(task, protocol.DEFAULT_EPOCHS)
    return epochs


def _once(task: Task, epochs: int | None, samples: int | None, seconds: float | None) -> int | None:
    """The epochs of a stream: one, or None where samples are given. Raises UsageError for more than the data once, and
    for a task whose last samples are not whole."""
    if seconds is not None or epochs not in (None, 1):
        raise UsageError("--stream sees the data once: leave --epochs and --seconds out; --samples N ends it earlier")
    if samples is not None and samples > len(task.train):
        raise UsageError(
            f"--stream --samples {samples}: {task.name} has {len(task.train):,} training samples, and a stream sees "
            "each of them once; ask for fewer"
        )
    if len(task.train.x) != len(task.train.y):
        raise UsageError(
            f"the stream of {task.name} ends in mid-sample: {len(task.train.x):,} inputs and {len(task.train.y):,} "
            "labels; leave out what has no counterpart"
        )
    return 1 if samples is None else epochs


def _settings(task: Task, net: str, width: int | None, depths: Sequence[int]) -> list[Setting]:
    """One setting a depth; the others at nearly as many parameters as the first, by narrower or wider layers."""
    usual = {"conv": 32, "vgg8b": 16, "local": 64}.get(net) or protocol.WIDTH.get(task.name, protocol.DEFAULT_WIDTH)
    first = Setting(task.name, task.problem, net, width or usual, depths[0])
    goal = parameters(first)
    found = [first]
    for depth in depths[1:]:
        candidates = (replace(first, width=width, depth=depth) for width in range(1, 4 * first.width))
        found.append(min(candidates, key=lambda setting: abs(parameters(setting) - goal)))
    return found


def parameters(setting: Setting) -> int:
    """How many parameters the common net has (weights and biases), without building it."""
    shape = [int(n or 0) for n in setting.problem.input_shape]
    with torch.device("meta"):
        net = network(setting.net, shape, hidden(setting), classes=setting.problem.outputs)
    return sum(p.numel() for p in net.parameters())


def _contenders(
    names: Sequence[str] | None,
    setting: Setting,
    settings: Sequence[str],
    task: Task,
    streamed_by: int | None = None,
) -> list[Contender]:
    """The named rules' contenders, then the controls, both with the settings that override theirs.

    streamed_by: the batch size of a stream, if it is one.
    """
    chosen = [contender(name, setting) for name in dict.fromkeys(names or rules.places())]
    every = controlled(chosen, setting, task)
    if streamed_by is not None:
        every = [streamed(c, (task.name, setting.net), default_batch_size(task), streamed_by) for c in every]
    return override(every, list(settings), setting.net)


def controlled(chosen: Sequence[Contender], setting: Setting, task: Task, *, same_net: bool = False) -> list[Contender]:
    """The contenders, then their controls; an unsupported contender has none. same_net: only backprop on their nets."""
    supported = [c for c in chosen if unsupported(c, fitted(c, setting, task), 0) is None]
    others = controls(supported, setting)
    if same_net:
        kept = {net_of(c, setting) for c in supported}
        others = [c for c in others if c.rule == "backprop" and not c.frozen and net_of(c, setting) in kept]
    return list({c.label: c for c in [*chosen, *others]}.values())


def unsupported(c: Contender, setting: Setting, seed: int) -> str | None:
    """Why the rule cannot train the contender's net, in words."""
    return rules.find(c.rule).refuses(c.network(setting, seed), setting.problem)


def _carry_out(plans: Iterable[Plan], store: Store, observer: Observer) -> None:
    """Every plan once; one that another process is busy with is waited for, at the end."""
    plans = list(plans)
    observer.plan(len(plans))
    busy = [plan for plan in plans if not _locked(plan, store, observer, wait=False)]
    for plan in busy:
        _locked(plan, store, observer, wait=True)


def _locked(plan: Plan, store: Store, observer: Observer, *, wait: bool) -> bool:
    """Carry a plan out under a lock that dies with its process; False if another process holds it."""
    folder = store.path.with_suffix(store.path.suffix + ".checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout):
        with FileLock(folder / f"{plan.key()[:24]}.lock", timeout=-1 if wait else 0):
            _one(plan, store, observer)
        return True
    return False


def _one(plan: Plan, store: Store, observer: Observer) -> None:
    label, key = plan.contender.label, plan.key()
    known = store.run(key)
    if known is not None and known["status"] in ("ok", "diverged", "unsupported"):
        observer.end(label, plan.seed, known["status"], "in the store")
        return
    if known is not None:  # bits are the same at the same thread count only
        plan = replace(plan, process=replace(plan.process, threads=known["details"]["threads"]))
    run = store.add_run(key, plan.columns(), plan.details())
    reason = unsupported(plan.contender, plan.setting, plan.seed) or plan.unfit()
    if reason is not None:
        store.set_status(run, "unsupported", reason)
        observer.end(label, plan.seed, "unsupported", reason)
        return
    observer.start(label, plan.seed, plan.setting.depth)
    with plan.process.applied(protocol.seed_of("global", plan.seed)):
        running = plan.run(store, run, known["checkpoint"] if known else None)
        try:
            running.train(observer.advance)
        except Diverged as end:
            running.stop("diverged", str(end))
            observer.end(label, plan.seed, "diverged", str(end))
        except UsageError as refusal:  # which a rule could not know before its first step
            running.stop("unsupported", str(refusal))
            observer.end(label, plan.seed, "unsupported", str(refusal))
        except KeyboardInterrupt:
            running.stop("interrupted", "Ctrl-C")
            raise
        else:
            observer.end(label, plan.seed, "ok", "")


def _check(
    net: str,
    seeds: int,
    depth: Sequence[int],
    width: int | None,
    batch_size: int | None,
    threads: int,
    device: str,
    precision: str,
) -> None:
    if net not in NETS:
        near = difflib.get_close_matches(net, NETS, 1)
        raise UsageError(
            f"--net {net}: " + (f"did you mean {near[0]!r}?" if near else f"the nets are {', '.join(NETS)}")
        )
    numbers = {"--seeds": seeds, "--width": width, "--batch-size": batch_size, "--threads": threads}
    numbers |= {"--depth": min(depth, default=0)}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: give a positive whole number")
    if net == "vgg8b" and tuple(depth) != (protocol.DEFAULT_DEPTH,):
        raise UsageError("--net vgg8b has its own depth, of eight layers; leave --depth out, or take --net conv")
    if precision not in ("highest", "high", "medium"):
        raise UsageError(f"--precision {precision}: choose highest, high or medium")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.partition(":")[0], False):
        have = ", ".join(name for name, there in available.items() if there)
        raise UsageError(f"--device {device}: not available on this machine; it has {have}")
