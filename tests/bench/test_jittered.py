"""Jitter in training: every rule gets moved images, evaluation does not, and a stopped run goes on to the same bits."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop.bench import compare, train
from altprop.bench.compare import carry_out, plan
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender
from altprop.bench.protocol import Budget, seed_of
from altprop.bench.train import Plan, Process
from altprop.rules.reference.backprop import Backprop
from altprop.tasks import load, order
from altprop.tasks.jitter import moved, offsets

TIMES = ["train_seconds", "cpu_seconds", "finish_seconds", "load", "started", "run"]


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)


def made(jitter: int) -> Plan:
    data = load("digits")
    setting = Setting("digits", data.flat().problem, "mlp", 16, 2)
    return plan(replace(contender("backprop", setting), jitter=jitter), setting, data, 0, Budget(2), Process())


def test_training_images_are_moved_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, asked = [], []
    learn, forward = Backprop.learn, Backprop.forward
    monkeypatch.setattr(train.Run, "_count", lambda *_: None)
    monkeypatch.setattr(Backprop, "learn", lambda self, x, y: (seen.append(x), learn(self, x, y))[1])
    monkeypatch.setattr(Backprop, "forward", lambda self, x: (asked.append(x), forward(self, x))[1])
    carry_out([made(2)], tmp_path / "s.db")
    task, seed = load("digits").flat(), seed_of("data", 0)
    for epoch, batches in ((0, seen[: len(seen) // 2]), (1, seen[len(seen) // 2 :])):
        x, _ = task.train.batch(order(1197, seed, epoch))
        expected = moved(x, offsets(1197, 2, seed, epoch), 2, (1, 8, 8))
        assert torch.equal(torch.cat(batches), expected) and not torch.equal(expected, x)
    parts = [(task.train, 0, 1000), (task.train, 1000, 1197), (task.validation, 0, 300), (task.test, 0, 300)]
    evaluated = [part.batch(slice(start, stop))[0] for part, start, stop in parts]
    assert len(asked) % len(parts) == 0
    assert all(torch.equal(x, evaluated[i % len(parts)]) for i, x in enumerate(asked))


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = carry_out([made(1)], tmp_path / "whole.db")
    progress = train.Run._progress

    def stop(self: train.Run) -> float:
        if self.samples > 1700:  # in the second epoch
            raise KeyboardInterrupt
        return progress(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Run, "_progress", stop)
        carry_out([made(1)], tmp_path / "parts.db")
    parts = carry_out([made(1)], tmp_path / "parts.db")
    pd.testing.assert_frame_equal(whole.drop(columns=TIMES), parts.drop(columns=TIMES))
    plain = carry_out([made(0)], tmp_path / "plain.db")
    assert not plain["value"].equals(whole["value"])
    assert made(1).key() != made(0).key()
