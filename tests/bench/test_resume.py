"""A run that is killed at any moment goes on from its last checkpoint, and ends with the same bits."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop.bench import compare as comparing
from altprop.bench import train as training
from altprop.bench.compare import compare
from altprop.bench.store import Store
from altprop.errors import UsageError, warn
from altprop.rule import Metrics
from altprop.rules import RULES

ARGUMENTS = {"seeds": 1, "epochs": 3, "width": 32}
COMMAND = ["--task", "digits", "--seeds", "1", "--epochs", "3", "--width", "32"]
TIMES = ["train_seconds", "cpu_seconds", "finish_seconds", "load", "started", "command", "run"]
KEYS = ["rule", "variant", "seed", "samples", "predictor", "split", "metric"]


def bits(frame: pd.DataFrame) -> pd.DataFrame:
    """All that must be the same: every stored value, times apart."""
    return frame.drop(columns=TIMES).sort_values(KEYS).reset_index(drop=True)


def whole(store: Path, rules: list[str] | None = None) -> pd.DataFrame:
    """A comparison that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patched:  # audits are no runs, and long
        patched.setattr(comparing, "audit_all", lambda *_: None)
        return bits(compare("digits", rules, store=store, **ARGUMENTS))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return whole(tmp_path_factory.mktemp("whole") / "s.db")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    store, names = tmp_path / "s.db", ["forward-forward", "signal-propagation", "predictive-coding", "soft-wta"]
    command = [sys.executable, "-m", "altprop.cli", "compare", *COMMAND, "--store", str(store)]
    command += ["--rules", ",".join(names)]
    command += ["--report", str(tmp_path / "r")]
    moments = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = checkpoints(store)
        while checkpoints(store) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.5 * moments.random())
        assert process.poll() is None, "finished before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    opened = Store(store)
    pd.testing.assert_frame_equal(bits(opened.results()), whole(tmp_path / "whole.db", names))
    opened.close()
    assert not checkpoints(store)


def checkpoints(store: Path) -> set[str]:
    return {file.name for file in Path(f"{store}.checkpoints").glob("*.safetensors")}


class Killed(BaseException):
    """What a test raises in the place of SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("name", RULES)
def test_stopped_between_any_two_writes(
    name: str, tmp_path: Path, undisturbed: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, save = training.checkpoint.write, Store.save
    calls = 0

    def dying(at: int, before: bool) -> None:
        def count(real: object, *args: object, **kwargs: object) -> None:
            nonlocal calls
            calls += 1
            if calls == at and before:
                raise Killed
            assert callable(real)
            real(*args, **kwargs)
            if calls == at:
                raise Killed

        monkeypatch.setattr(training.checkpoint, "write", lambda *a: count(write, *a))
        monkeypatch.setattr(Store, "save", lambda *a, **k: count(save, *a, **k))

    for at, before in ((1, True), (2, True), (3, False), (4, False), (5, True), (5, False)):
        calls = 0
        dying(at, before)
        with pytest.raises(Killed):
            compare("digits", [name], store=tmp_path / "s.db", **ARGUMENTS)
    monkeypatch.undo()
    monkeypatch.setattr(comparing, "audit_all", lambda *_: None)
    frame = bits(compare("digits", [name], store=tmp_path / "s.db", **ARGUMENTS))
    mine = (frame["rule"] == name) & (frame["variant"] == "")
    theirs = (undisturbed["rule"] == name) & (undisturbed["variant"] == "")
    pd.testing.assert_frame_equal(frame[mine].reset_index(drop=True), undisturbed[theirs].reset_index(drop=True))


def test_finished_runs_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare("digits", ["backprop"], store=tmp_path / "s.db", seeds=1, epochs=1)

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training.Run, "train", refuse)
    pd.testing.assert_frame_equal(first, compare("digits", ["backprop"], store=tmp_path / "s.db", seeds=1, epochs=1))


def test_goes_on_at_the_stored_thread_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: training.Run, advance: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Run, "train", interrupt)
        compare("digits", ["backprop"], store=tmp_path / "s.db", seeds=1, epochs=1, threads=2)
    opened = Store(tmp_path / "s.db")
    assert set(opened.results()["status"]) == {"interrupted"}
    opened.close()
    seen = []
    train = training.Run.train

    def watch(self: training.Run, advance: object) -> None:
        seen.append(torch.get_num_threads())
        train(self, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(training.Run, "train", watch)
    frame = compare("digits", ["backprop"], store=tmp_path / "s.db", seeds=1, epochs=1, threads=1)
    assert seen[0] == 2 and set(seen[1:]) == {1}
    assert set(frame["status"]) == {"ok"}


def test_what_was_warned_of_before_a_stop_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(comparing.Silent):
        def advance(self, progress: float) -> None:
            if progress > 0.6:
                raise KeyboardInterrupt

    step = training.Run._step

    def warning(self: training.Run, x: torch.Tensor, y: torch.Tensor) -> Metrics:
        if self.samples == 0:
            warn("a word at first")
        return step(self, x, y)

    monkeypatch.setattr(training.Run, "_step", warning)
    given = {"seeds": 1, "epochs": 2, "width": 16, "store": tmp_path / "s.db"}
    with pytest.raises(KeyboardInterrupt):
        compare("digits", ["backprop"], observer=Stopping(), **given)
    frame = compare("digits", ["backprop"], **given)
    assert set(frame["reason"]) == {"a word at first"}


def test_damaged_checkpoint_is_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"store": tmp_path / "s.db", "seeds": 1, "epochs": 2}
    advance = training.Run._progress

    def stop(self: training.Run) -> float:
        if self.samples > 600:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.Run, "_progress", stop)
        compare("digits", ["backprop"], **arguments)
    (file,) = (tmp_path / "s.db.checkpoints").glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=f"{file.name} is missing, damaged or cut in half"):
        compare("digits", ["backprop"], **arguments)
    file.unlink()
    frame = compare("digits", ["backprop"], **arguments)
    assert set(frame["status"]) == {"ok"}
    assert not frame.duplicated(KEYS).any()


def test_checkpoint_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, files = training.Run._measure, {}

    def stop(self: training.Run) -> None:
        measure(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "_measure", stop)
    for width in (16, 32):
        store = tmp_path / f"{width}.db"
        with pytest.raises(KeyboardInterrupt):
            compare("digits", ["backprop"], store=store, seeds=1, epochs=1, width=width)
        (files[width],) = Path(f"{store}.checkpoints").glob("*.safetensors")
    files[16].write_bytes(files[32].read_bytes())
    with pytest.raises(UsageError, match="belongs to another run; delete it to start anew"):
        compare("digits", ["backprop"], store=tmp_path / "16.db", seeds=1, epochs=1, width=16)


def test_two_processes_on_one_store(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "altprop.cli", "compare", "--rules", "backprop", "--seeds", "2", "--epochs", "2"]
    command += ["--store", str(tmp_path / "s.db")]
    both = [
        subprocess.Popen(
            [*command, "--report", str(tmp_path / f"r{i}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for i in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    opened = Store(tmp_path / "s.db")
    frame = opened.results()
    opened.close()
    assert set(frame["status"]) == {"ok"}
    assert not frame.duplicated(KEYS).any()
    assert len(frame.drop_duplicates("run")) == 6  # backprop, linear, frozen; two seeds each
