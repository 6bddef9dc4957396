"""Black boxes in a comparison, and the studies of them, small, on the digits."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop import UsageError, nets
from altprop.bench import black_boxes, compare
from altprop.bench.black_box_methods import FITTED, METHODS, SIGNAL, STRAIGHT, WEIGHTS
from altprop.bench.black_box_sizes import Sizes, next_notch, stable, width_of
from altprop.bench.black_box_strengths import PLAIN, Place, Strengths, activity, tried
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender, controls
from altprop.bench.overrides import override
from altprop.bench.publish import read_rows
from altprop.bench.stats import targets
from altprop.bench.train import Run
from altprop.report import leaderboard
from altprop.rules import RULES, find
from altprop.tasks import load

DIGITS = load("digits").flat()
SETTING = Setting("digits", DIGITS.problem, "black-box", 16, 2)
SMALL = Strengths(
    width=16,
    epochs=1,
    seeds=2,
    multiples=(1.0, 1e30),
    methods=(STRAIGHT, FITTED, SIGNAL),
    strengths={"noisy": (0.5,), "distorted": (2.0,)},
)
FEW = Sizes(weights=(1_000,), epochs=2, seeds=2, first=-3, methods=(STRAIGHT, WEIGHTS))


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)


# In a comparison.


@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_or_is_refused_before(name: str) -> None:
    chosen = contender(name, SETTING)
    reason = compare.unsupported(chosen, SETTING, 0)
    if find(name).claims.differentiable:
        assert reason is not None and "a black box in it has no derivative" in reason
    elif reason is None:
        rule = chosen.build(SETTING, 0)
        x, y = DIGITS.train.batch(slice(0, 32))
        assert math.isfinite(float(rule.step(x, y)["loss"]))
    else:
        assert name == "recurrent-forward-forward"


def test_backprop_straight_through_is_the_yardstick(tmp_path: Path) -> None:
    frame = compare.compare(
        "digits", ["backprop", "spela"], net="black-box", width=16, samples=2_000, seeds=1, store=tmp_path / "s.db",
        settings=["net.box=quantised", "net.strength=0.25"],
    )  # fmt: skip
    board = leaderboard.frame(frame).set_index("label")
    labels = {"backprop · straight through", "backprop · frozen", "backprop · linear", "backprop", "spela (last)"}
    assert labels <= set(board.index)
    assert board.loc["backprop", "status"].startswith("unsupported: a black box in it has no derivative")
    assert board.loc["backprop · straight through", "time"] == 1 and board.loc["spela (last)", "time"] > 0
    assert len(targets(frame)) == 3
    assert frame["hyperparameters"].str.contains('"box": "quantised"').sum() > 0


def test_controls_on_a_black_box_stand_on_it_too() -> None:
    found = {c.variant: c for c in controls([contender("mono-forward", SETTING)], SETTING)}
    own = "on the net of mono-forward"
    assert list(found) == [
        "straight through", "linear", "frozen", f"straight through {own}", f"frozen {own}",
    ]  # fmt: skip
    for control in found.values():
        x, y = DIGITS.train.batch(slice(0, 8))
        rule = control.build(SETTING, 0)
        rule.step(x, y)
        assert any(isinstance(m, nets.BlackBox) for m in rule.net.modules()) == (control.variant != "linear")


def test_set_net_reaches_all_that_are_on_it_and_a_control_keeps_its_derivative() -> None:
    chosen = [contender("spela", SETTING), *controls([], SETTING)]
    found = override(chosen, ["net.box=noisy", "net.derivative=none"], "black-box")
    options = {c.label: c.net_options for c in found}
    assert options["spela"] == {"box": "noisy", "derivative": "none"}
    assert options["backprop · straight through"] == {"box": "noisy", "derivative": "straight-through"}
    assert options["backprop · linear"] == {}


@pytest.mark.parametrize(
    ("setting", "kind", "words"),
    [
        ("net.boxx=noisy", "black-box", "the black-box net has no hyperparameter 'boxx'; did you mean 'box'"),
        ("net.strength=much", "black-box", "strength is of kind float"),
        ("net.box=noisy", "mlp", "the mlp net has no hyperparameter 'box'; there are norm, bias"),
    ],
)
def test_bad_settings_of_the_net_are_refused(setting: str, kind: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        override([contender("spela", SETTING)], [setting], kind)


# Strength.


def test_at_strength_0_every_box_trains_the_same_net() -> None:
    ends = []
    for box in ("noisy", "distorted", "quantised"):
        made = SMALL.plan(SIGNAL, Place(box, 0.0), 1.0, 0)
        rule = made.contender.build(made.setting, 0).double()
        for x, y in list(made.task.loader("train", 32, seed=0, epoch=0))[:5]:
            rule.step(x.double(), y)
        ends.append([p.detach() for p in rule.parameters()])
    for other in ends[1:]:  # to rounding: where noise may come, inputs and targets go through a block one by one
        torch.testing.assert_close(ends[0], other, rtol=1e-9, atol=1e-11)


def test_the_methods_are_told_apart() -> None:
    assert len({m.name for m in METHODS}) == len({m.variant("there") + m.rule for m in METHODS}) == len(METHODS)
    assert not tried(FITTED, Place("noisy", 1.0)) and tried(FITTED, PLAIN) and tried(STRAIGHT, Place("noisy", 1.0))


def test_activity_is_that_of_the_plain_net() -> None:
    made = SMALL.plan(STRAIGHT, PLAIN, 1.0, 0)
    plain = [b for b in made.contender.network(made.setting, 0) if isinstance(b, nets.Block)][:-1]
    x, _ = made.task.train.batch(slice(None))
    h, squares = x, []
    for block in plain:
        h = block(h).detach()
        squares.append(float(h.square().mean()))
    assert activity(SMALL) == pytest.approx((sum(squares) / len(squares)) ** 0.5, rel=1e-4)


# Number of weights.


@pytest.mark.parametrize(
    ("found", "following"),
    [
        ({}, -1),
        ({-1: False}, -2),
        ({-1: False, -2: False}, -3),
        ({-1: False, -2: True}, None),
        ({-1: True}, 0),
        ({-1: True, 0: True, 1: False}, None),
        ({-16: False}, None),
        ({4: True}, None),
    ],
)
def test_the_search_ends_between_a_stable_and_an_unstable_rate(found: dict[int, bool], following: int | None) -> None:
    assert next_notch(found, first=-1) == following


def test_stable_is_below_guessing_and_never_diverged() -> None:
    points = pd.DataFrame({
        "metric": ["loss", "accuracy", "loss"], "samples": [32, 64, 64], "value": [9.0, 0.9, 1.0], "status": "ok",
    })  # fmt: skip
    assert stable(points, classes=10)
    assert not stable(points, classes=2)
    assert not stable(points.assign(status="diverged"), classes=10)
    assert not stable(points.assign(samples=[64, 32, 32]), classes=10)


@pytest.mark.parametrize("weights", Sizes().weights)
def test_widths_make_the_number_of_weights(weights: int) -> None:
    width = width_of(weights, 64, 10)
    assert 64 * width + width**2 + 10 * width == pytest.approx(weights, rel=0.05)


# Both, published.


def test_the_studies_are_published_and_a_second_run_measures_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    black_boxes.run(SMALL, FEW, tmp_path, tmp_path / "s.db")
    folder = tmp_path / "black-boxes"
    names = [f"{name}.{ending}" for name in ("strengths", "sizes") for ending in ("png", "svg")]
    assert {path.name for path in folder.iterdir()} == {*names, "rows.csv", "runs.csv", "sizes.csv"}
    rows = read_rows(folder)
    assert set(rows["seed"]) == {0, 1} and rows["variant"].str.contains("rate x 1$").all()  # the other one diverges
    rates = pd.read_csv(folder / "sizes.csv").groupby(["method", "weights"])["rate"].agg(["min", "max", "count"])
    assert list(rates["count"]) == [2, 2]
    assert rates["min"]["backprop, straight through"].min() > rates["max"]["weight-perturbation"].max()
    text = (tmp_path / "black_boxes.md").read_text()
    assert "| distorted, moved | 0 | 2 |" in text and "| backprop, straight through |" in text
    plain = rows[(rows["split"] == "test") & (rows["samples"] > 0) & rows["variant"].str.contains("distorted 0")]
    means = 100 * plain[plain["predictor"].isin(("", "output"))].groupby(["rule", "variant"])["value"].mean()
    assert f"| signal-propagation | {means['signal-propagation'].iloc[0]:.1f} ± " in text
    monkeypatch.setattr(Run, "train", lambda *_: pytest.fail("it was measured again"))
    black_boxes.run(SMALL, FEW, tmp_path / "again", tmp_path / "s.db")
    assert (tmp_path / "again" / "black_boxes.md").read_text() == text


def test_moved_weights_are_those_of_the_copy_they_learned_on() -> None:
    own, moved = (SMALL.plan(SIGNAL, Place("distorted", 2.0, moved=m), 1.0, 0) for m in (False, True))
    ends = []
    for made in (own, moved):
        rule = made.contender.build(made.setting, 0)
        for x, y in list(made.task.loader("train", 32, seed=0, epoch=0))[:3]:
            rule.step(x, y)
        ends.append((rule.state_dict(), rule.eval()(x)))
    assert all(torch.equal(v, ends[1][0][k]) for k, v in ends[0][0].items())
    assert not torch.allclose(ends[0][1], ends[1][1])


def test_a_method_multiplies_every_rate() -> None:
    made = replace(SMALL, methods=METHODS).plan(SIGNAL, PLAIN, 3.0, 0)
    tuned = contender("signal-propagation", SETTING).optimizer["all"].arguments["lr"]
    assert made.contender.optimizer["all"].arguments["lr"] == pytest.approx(3 * tuned)
