"""A readout in closed form, in the training loop: it is solved before each evaluation, and not before that."""

from dataclasses import replace
from pathlib import Path

import pytest

from altprop.bench import compare
from altprop.bench.compare import carry_out, plan
from altprop.bench.contender import Setting
from altprop.bench.hebbian_recipes import perceptron
from altprop.bench.protocol import Budget
from altprop.bench.train import Process
from altprop.tasks import load


def test_a_ridge_that_gathers_for_more_than_an_epoch_is_solved_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)
    data = load("digits")
    setting = Setting("digits", data.flat().problem, "mlp", 16, 2)
    chosen = perceptron(setting)[0]
    chosen = replace(chosen, widths=(60,), options={**chosen.options, "settle": 0.2}, batch_size=20)
    rows = carry_out([plan(chosen, setting, data, 0, Budget(2, curve=False), Process())], tmp_path / "s.db")
    assert set(rows["status"]) == {"ok"}
    last = rows[(rows["split"] == "test") & (rows["metric"] == "accuracy")]["value"].iloc[-1]
    assert last > 0.85
