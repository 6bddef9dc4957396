"""`compare(stream=True)`: answers as by a plain loop, stored, skipped, stopped and gone on with, never mixed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from altprop import UsageError
from altprop.bench import compare as comparing
from altprop.bench import protocol
from altprop.bench.cases import arrange, newest
from altprop.bench.compare import compare
from altprop.bench.contender import Contender, Optimizer, Setting, sgd
from altprop.bench.contenders import contender
from altprop.bench.prequential import (
    GAP,
    HIGH,
    MEDIAN,
    OF_ALL,
    OF_LAST,
    ONE_PASS,
    OPERATIONS,
    PROCESSOR,
    SECONDS,
    StreamRun,
)
from altprop.bench.streamed import streamed
from altprop.bench.train import Run
from altprop.report import streaming
from altprop.report.figures import draw
from altprop.tasks import load

DIGITS = load("digits").flat()
SETTING = Setting("digits", DIGITS.problem, "mlp", 16, 2)
TRAIN = Run.train
NAMES = ["signal-propagation", "spela", "self-contrastive-forward-forward"]


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "audit_all", lambda *_: None)


def once(store: Path, **arguments: object) -> pd.DataFrame:
    """The rules of NAMES on a stream, without controls and audit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "audit_all", lambda *_: None)
        patch.setattr(comparing, "controls", lambda *_: [])
        return compare("digits", NAMES, stream=True, seeds=1, width=16, store=store, **arguments)  # type: ignore[arg-type]


def heard(frame: pd.DataFrame, rule: str) -> dict[tuple[str, int], float]:
    """What is stored of a rule's stream, by metric and samples."""
    own = frame[(frame["rule"] == rule) & (frame["variant"] == "") & (frame["split"] == "stream")]
    return {(row.metric, int(row.samples)): row.value for row in own.itertuples()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("streams") / "s.db"
    once(store)
    return store


@pytest.fixture
def frame(stored: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """From the store: nothing may be run again."""

    def refuse(*_: object) -> None:
        raise AssertionError("streamed again")

    monkeypatch.setattr(Run, "train", refuse)
    return once(stored)


@pytest.mark.parametrize("name", NAMES[:2])
def test_accuracy_is_that_of_a_plain_loop(frame: pd.DataFrame, name: str) -> None:
    rule = streamed(contender(name, SETTING), ("digits", "mlp"), 32).build(SETTING, 0)
    right = []
    for i, (x, y) in enumerate(DIGITS.loader("train", 1, seed=protocol.seed_of("data", 0))):
        rule.eval()
        with torch.no_grad():
            right.append(int(rule(x).argmax() == y))
        rule.progress = i / len(DIGITS.train)
        rule.step(x, y)
    found = heard(frame, name)
    for samples in (500, 1000, 1197):
        window = right[max(0, samples - 1000) : samples]
        assert found["accuracy", samples] == sum(window) / len(window)
    assert found[OF_ALL, 1197] == found[OF_LAST, 1197] == sum(right) / 1197
    rule.eval()
    x, y = DIGITS.test.batch(slice(None))
    last = frame[(frame["rule"] == name) & (frame["split"] == "test") & (frame["samples"] == 1197)]
    with torch.no_grad():
        accuracy = float((rule(x).argmax(1) == y).double().mean())
    by_forward = {"signal-propagation": "output", "spela": "last"}[name]
    assert last.set_index("predictor")["value"][by_forward] == pytest.approx(accuracy)


def test_how_a_rule_answered_and_how_long_it_took_is_stored(frame: pd.DataFrame) -> None:
    one, two = heard(frame, "signal-propagation"), heard(frame, "spela")
    assert one[ONE_PASS, 1197] == (1197 - 21) / 1197 and two[ONE_PASS, 1197] == 0  # 20 steps, and the 1,000th
    assert 0 <= one[GAP, 1197] < 1e-4
    for found in (one, two):
        for event in ("answer", "blocks.0", "blocks.1", "blocks.2"):
            for kind in (SECONDS, PROCESSOR):
                assert 0 < found[MEDIAN + kind + event, 1197] <= found[HIGH + kind + event, 1197]
    forward = 2 * (64 * 16 + 16 * 16 + 16 * 10) + 2 * 10 * (16 + 16 + 10)  # blocks, and cosines with ten classes
    assert two[OPERATIONS + "answer", 1197] == forward < two[OPERATIONS + "blocks.0", 1197]
    assert one[OPERATIONS + "blocks.0", 1197] < one[OPERATIONS + "answer", 1197]
    spent = frame[frame["samples"] == 1197].drop_duplicates("rule").set_index("rule")
    step = spent.loc["spela", "operations_per_sample"] - forward  # its answers count as work
    assert two[OPERATIONS + "blocks.2", 1197] == forward + step


def test_what_cannot_stream_is_named(frame: pd.DataFrame) -> None:
    row = frame[frame["rule"] == "self-contrastive-forward-forward"].iloc[0]
    assert row["status"] == "unsupported" and "a batch of one has no other" in row["reason"]
    board = streaming.frame(frame).set_index("label")
    assert board.loc["self-contrastive-forward-forward", "status"].startswith("unsupported: it compares")
    assert math.isnan(board.loc["self-contrastive-forward-forward", "last"])


def test_the_board_shows_each_contender_once(frame: pd.DataFrame) -> None:
    board = streaming.frame(frame)
    assert board["label"].is_unique and {"signal-propagation (output)", "spela (last)"} <= set(board["label"])
    row = board.set_index("label").loc["signal-propagation (output)"]
    assert list(row["passes"]) == ["blocks.0", "target", "blocks.1", "answer", "blocks.2"]
    assert row["last"] == heard(frame, "signal-propagation")[OF_LAST, 1197]
    text = "\n".join(str(cell) for column in streaming.table(frame).columns for cell in column.cells)
    assert "one pass" in text and "two passes" in text and "unsupported" in text


def test_small_batches_stream_too(tmp_path: Path) -> None:
    frame = compare("digits", NAMES[2:], stream=True, seeds=1, width=16, batch_size=8, store=tmp_path / "s.db")
    assert set(frame["status"]) == {"ok"} and set(frame["batch_size"]) == {8}
    assert heard(frame, NAMES[2])[OF_ALL, 1197] > 0.2


def test_stopped_and_gone_on_with_to_the_same_answers(
    tmp_path: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, state = StreamRun._step, StreamRun._state

    def altered(found: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        found[1]["stream"]["gap"] = 0.25
        return found

    def stop(self: StreamRun, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.samples == 1100:
            raise KeyboardInterrupt
        return step(self, x, y)

    monkeypatch.setattr(Run, "train", TRAIN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StreamRun, "_state", lambda run: altered(state(run)))
        patch.setattr(StreamRun, "_step", stop)
        once(tmp_path / "s.db")
    again = once(tmp_path / "s.db")
    one, two = heard(frame, NAMES[0]), heard(again, NAMES[0])
    assert one.keys() == two.keys()
    assert all(one[key] == two[key] for key in one if key[0].startswith(("accuracy", OPERATIONS)))
    assert two[GAP, 1197] == 0.25 != one[GAP, 1197]  # what lay furthest apart before the stop is not forgotten
    own = [f[(f["rule"] == NAMES[0]) & (f["split"] == "test")].set_index("samples") for f in (frame, again)]
    pd.testing.assert_series_equal(own[0]["value"], own[1]["value"])


def test_streams_stand_beside_other_runs_and_are_not_mixed_with_them(tmp_path: Path) -> None:
    settings = ["backprop.lr=1e-3", "backprop.schedule=constant", "backprop.batch_size=1"]
    same = {"seeds": 1, "samples": 600, "width": 16, "settings": settings, "store": tmp_path / "s.db"}
    for stream in (True, False):
        frame = compare("digits", ["backprop"], stream=stream, **same)  # type: ignore[arg-type]
    plain = frame[frame["variant"] == ""]
    assert plain["hyperparameters"].nunique() == 1 and plain["run"].nunique() == 2
    rows, notes = newest(plain)
    assert rows["run"].nunique() == 2 and not notes
    assert set(arrange(rows)["label"]) == {"backprop, mode stream", "backprop, mode default"}
    ends = plain[(plain["split"] == "test") & (plain["samples"] == 600)]["value"]
    assert ends.nunique() == 1  # they learn the same
    assert [label for label in streaming.frame(frame)["label"] if "linear" not in label and "frozen" not in label] == [
        "backprop"
    ]
    pictures = [path.name for path in draw(frame, tmp_path) if path.suffix == ".svg"]
    assert "digits-stream.svg" in pictures and "digits-accuracy-samples.svg" in pictures


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 2}, "sees the data once"),
        ({"seconds": 1.0}, "sees the data once"),
        ({"samples": 1198}, "digits has 1,197 training samples"),
        ({"batch_size": 0}, "positive whole number"),
    ],
)
def test_more_than_the_data_once_is_refused(tmp_path: Path, arguments: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        once(tmp_path / "s.db", **arguments)


def test_a_task_that_ends_in_mid_sample_is_refused(tmp_path: Path) -> None:
    cut = replace(DIGITS, train=replace(DIGITS.train, x=DIGITS.train.x[:-3]))
    with pytest.raises(UsageError, match="the stream of digits ends in mid-sample: 1,194 inputs and 1,197 labels"):
        compare(cut, NAMES, stream=True, store=tmp_path / "s.db")


def test_a_stream_that_diverges_says_so(tmp_path: Path) -> None:
    frame = compare(
        "digits", ["backprop"], stream=True, seeds=1, samples=100, width=16, store=tmp_path / "s.db",
        settings=["backprop.lr=1e30"],
    )  # fmt: skip
    plain = frame[frame["variant"] == ""]
    assert set(plain["status"]) == {"diverged"} and plain["reason"].str.contains("not finite|loss (?:was|is)").all()
    assert "diverged" in streaming.frame(frame).set_index("label").loc["backprop", "status"]


def test_rates_come_down_with_the_batch() -> None:
    base = Contender(
        "backprop", (16,), optimizer={"body": sgd(0.8, momentum=0.9), "head": Optimizer()}, schedule="fall"
    )
    found = streamed(base, ("digits", "mlp"), usual=64)
    assert found.optimizer["body"].arguments == {"lr": 0.8 / 64, "momentum": 0.9}
    assert found.optimizer["head"].arguments == {"lr": 1e-3 / 8}
    assert (found.batch_size, found.schedule) == (1, "constant") and found.card.tuning.startswith("untuned")
    tripled = streamed(replace(base, batch_size=16), ("digits", "mlp"), usual=64, size=4, multiple=3.0)
    assert tripled.optimizer["body"].arguments["lr"] == pytest.approx(0.8 * 3 / 4)
    assert tripled.optimizer["head"].arguments["lr"] == pytest.approx(1e-3 * 3 / 2)
    assert "times 3" in tripled.card.tuning
    assert "times 1:" in streamed(base, ("mnist", "mlp"), usual=64).card.tuning
    assert "untuned" in streamed(base, ("mnist", "conv"), usual=64).card.tuning
