"""The training loop: divergence is stored, test data is never trained on, the process gets its settings back."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from altprop.bench import cases, protocol, stats
from altprop.bench import compare as comparing
from altprop.bench.compare import compare
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender
from altprop.bench.protocol import Budget
from altprop.bench.train import Process
from altprop.report import words
from altprop.tasks import Task, load


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "audit_all", lambda *_: None)


def test_a_run_that_diverges_is_stored_and_the_others_go_on(tmp_path: object) -> None:
    frame = compare(
        "digits",
        ["backprop", "predictive-coding"],
        seeds=1,
        epochs=1,
        store=f"{tmp_path}/s.db",
        settings=["backprop.lr=1e30"],
    )
    status = frame.groupby(["rule", "variant"])["status"].agg(set)
    assert status["backprop", ""] == {"diverged"}
    assert status["predictive-coding", ""] == {"ok"}
    assert frame.loc[frame["status"] == "diverged", "reason"].str.contains("after").all()


def poisoned(task: Task, split: str) -> Task:
    """The same task, one split's labels shuffled."""
    part = getattr(task, split)
    return replace(task, **{split: replace(part, y=np.roll(part.y, 1))})


def test_validation_and_test_data_never_touch_training(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "audit_all", lambda *_: None)  # audits see neither
    plain = load("digits")
    frames = []
    for i, task in enumerate((plain, poisoned(plain, "test"), poisoned(plain, "validation"))):
        frame = compare(task, None, seeds=1, samples=640, width=16, store=f"{tmp_path}/{i}.db")
        frames.append(frame[frame["split"] == "train"]["value"].reset_index(drop=True))
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])


def test_the_process_gets_its_settings_back(tmp_path: object) -> None:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    state = torch.get_rng_state()
    compare("digits", ["backprop"], seeds=1, samples=64, threads=2, precision="high", store=f"{tmp_path}/s.db")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)
    assert torch.equal(state, torch.get_rng_state())


def test_a_run_without_a_curve_ends_as_the_one_with_it(tmp_path: Path) -> None:
    task = load("digits").flat()
    setting = Setting("digits", task.problem, "mlp", 16, 2)
    frames = []
    for curve in (True, False):
        chosen = contender("forward-forward", setting)
        made = comparing.plan(chosen, setting, task, 0, Budget(epochs=2, curve=curve), Process(), "")
        frames.append(comparing.carry_out([made], tmp_path / "s.db"))
    with_it, without = frames[0], frames[1][~frames[1]["run"].isin(frames[0]["run"])]
    assert with_it["samples"].nunique() > 2 and without["samples"].nunique() == 2
    ends = [
        f[f["samples"] == f["samples"].max()].set_index(["predictor", "split"])["value"] for f in (with_it, without)
    ]
    assert ends[0].equals(ends[1]) and len(ends[0]) == 7  # accuracies of two predictors, and the loss


def test_unsupported_is_stored_with_its_reason(tmp_path: object) -> None:
    frame = compare("digits", None, seeds=1, samples=64, net="conv", width=4, store=f"{tmp_path}/s.db")
    unsupported = frame[frame["status"] == "unsupported"]
    assert "soft-wta" in set(unsupported["rule"])
    assert (unsupported["reason"].str.len() > 10).all()
    assert {"backprop", "direct-feedback-alignment", "signal-propagation"} <= set(
        frame[frame["status"] == "ok"]["rule"]
    )


def test_rows_say_how_they_came_about(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, samples=64, store=f"{tmp_path}/s.db", command="altprop compare")
    row = frame[frame["variant"] == ""].iloc[0]
    assert row["command"] == "altprop compare"
    assert row["parameters"] == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    per_sample = 2 * (64 * 128 + 128 * 128 + 128 * 10)
    assert row["forward_operations"] == per_sample
    assert row["operations_per_sample"] == 3 * per_sample - 2 * 64 * 128  # no gradient of the input
    assert json.loads(row["hyperparameters"])["widths"] == [128, 128]
    assert set(json.loads(row["versions"])) == {"python", "altprop", "torch", "numpy"}
    assert len(row["source_hash"]) == 16


def test_operations_a_sample_are_the_mean_over_a_run(tmp_path: object) -> None:
    frame = compare("digits", ["soft-wta"], seeds=1, epochs=8, width=16, store=f"{tmp_path}/s.db")
    by_variant = (
        frame[frame["rule"] == "soft-wta"].drop_duplicates("variant").set_index("variant")["operations_per_sample"]
    )
    assert by_variant[""] > 1.2 * by_variant["frozen on the net of soft-wta"]  # though both end with a body at rest


def test_operations_add_up(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, epochs=1, store=f"{tmp_path}/s.db")
    last = frame[frame["variant"] == ""].iloc[-1]
    assert last["operations"] == pytest.approx(last["operations_per_sample"] * 1197, rel=1e-3)


def test_the_training_loss_of_the_epoch_so_far_is_stored(tmp_path: Path) -> None:
    task = load("digits").flat()
    setting = Setting("digits", task.problem, "mlp", 16, 2)
    made = comparing.plan(contender("backprop", setting), setting, task, 0, Budget(epochs=2), Process())
    frame = comparing.carry_out([made], tmp_path / "s.db")
    stored = frame[frame["metric"] == "loss"].set_index("samples")["value"]
    assert list(stored.index) == [
        512,
        1_024,
        1_197,
        2_394,
    ]  # none before the first step
    rule, means, seed = made.contender.build(setting, 0), {}, protocol.seed_of("data", 0)
    for epoch in range(2):
        total = seen = 0.0
        for x, y in task.loader("train", 32, seed=seed, epoch=epoch):
            rule.progress = (epoch * len(task.train) + seen) / (2 * len(task.train))
            total += float(rule.step(x, y)["loss"]) * len(y)
            seen += len(y)
            means[epoch * len(task.train) + int(seen)] = total / seen
    assert stored.to_dict() == pytest.approx({samples: means[samples] for samples in stored.index})


def test_the_table_says_what_a_rule_warns_of(tmp_path: Path) -> None:
    frame = compare("digits", ["hebbian-pca"], net="conv", seeds=1, samples=640, width=16, store=tmp_path / "s.db")
    (reason,) = frame.loc[(frame["rule"] == "hebbian-pca") & (frame["variant"] == ""), "reason"].unique()
    assert reason.count("HebbianPCA: block 1 has 16 units, and its input only rank 9") == 1


def test_the_table_says_when_states_did_not_settle(tmp_path: Path) -> None:
    found = {}
    for sweeps in (1, 500):
        options = {"seeds": 1, "epochs": 1, "store": f"{tmp_path}/{sweeps}.db"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = compare("digits", ["almeida-pineda"], settings=[f"almeida-pineda.sweeps={sweeps}"], **options)
        own = stats.final(cases.arrange(frame))
        found[sweeps] = words.status(own[own["rule"] == "almeida-pineda"])
    assert found == {1: "finished, but in 100% of its last steps states did not settle", 500: "finished"}
