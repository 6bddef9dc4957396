"""The study of relaxation, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop import nets
from altprop.bench import relaxation, relaxation_speed
from altprop.rules.energy.predictive_coding import PredictiveCoding

STUDY = relaxation.Study(
    "digits", (16, 16), epochs=1, seeds=2, batch=64, sweeps=(2, 8), betas=(0.01, 1.0), rates=(1e-3, 1e-2),
    rules=("predictive-coding", "z-il", "almeida-pineda"), settled={"sweeps": 6, "rate": 0.3},
)  # fmt: skip


def test_the_study_is_published(tmp_path: Path) -> None:
    relaxation.run(STUDY, tmp_path, ("sweeps", "knob", "alignment"))
    folder = tmp_path / "relaxation"
    tables = {part: pd.read_csv(folder / f"{part}.csv") for part in ("sweeps", "knob", "alignment")}
    assert {path.name for path in folder.glob("*.png")} == {"sweeps.png", "knob.png"}
    sweeps, knob, alignment = tables.values()
    assert len(sweeps) == 2 * 2 * 2 and len(knob) == 2 * 3 * 2 * 3 and len(alignment) == 3 * 2 * 3
    passes = sweeps.groupby(["start", "sweeps"])["passes"].mean()
    assert (passes[:, 8] > 1.5 * passes[:, 2]).all()
    at = knob.groupby(["beta", "block"])[["cosine", "ratio"]].mean()
    assert at.loc[0.0].to_numpy() == pytest.approx(1.0)  # it is backpropagation
    assert (abs(at.loc[0.01] - 1) < abs(at.loc[1.0] - 1)).any(axis=None)
    assert set(knob["rate"]) <= {1e-3, 1e-2}
    exact = alignment[alignment["rule"] == "z-il"]
    assert exact["cosine"].to_numpy() == pytest.approx(1.0, abs=1e-5) and exact["residual"].isna().all()
    own = alignment[alignment["rule"] == "almeida-pineda"]
    assert own["cosine"].to_numpy() == pytest.approx(1.0, abs=1e-3) and (own["residual"] < 1e-3).all()
    text = (tmp_path / "relaxation.md").read_text()
    assert "## Sweeps" in text and "| cross-entropy | backprop |" in text and "## Speed" not in text


def test_autograd_of_the_whole_energy_finds_the_same_gradients() -> None:
    """Otherwise the two ways would not be one thing done in two."""
    net = nets.mlp([784, 20, 20, 20], classes=10)
    x, y = torch.rand(16, 784), torch.randint(10, (16,))
    relaxation_speed.whole_energy(net, x, y)
    expected = [p.grad.clone() for p in net.parameters()]
    rule = relaxation_speed.gradients_only(PredictiveCoding(net, sweeps=8, rate=0.1))
    rule.learn(x, y)
    for found, p in zip(expected, net.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-3, atol=1e-7)


def test_speed_measures_every_way_against_autograd() -> None:
    table = relaxation_speed.speed(rounds=1, repeats=1)
    assert set(table["act"]) == {"gelu", "relu"} and (table["samples_per_cpu_second"] > 0).all()
    assert (table[table["way"] == relaxation_speed.AUTOGRAD]["ratio"] == 1.0).all()
