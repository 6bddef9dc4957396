"""Contenders and controls: what every comparison holds, and `--set`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from altprop import Problem, UsageError
from altprop.bench.compare import _contenders, _settings, compare, parameters, plan
from altprop.bench.contender import Setting
from altprop.bench.contenders import contender, controls, reference
from altprop.bench.overrides import override
from altprop.bench.protocol import Budget
from altprop.bench.train import Process
from altprop.rules import RULES
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.mixed import Mixed
from altprop.tasks import Split, load
from altprop.tasks.task import divided

SETTING = Setting("digits", Problem((64,), 10), "mlp", 32, 2)
DIGITS = load("digits")


def test_forward_forward_shows_the_label_to_every_place_of_an_image() -> None:
    setting = Setting("digits", DIGITS.problem, "conv", 8, 2)
    rule = contender("forward-forward", setting).build(setting, 0)
    assert isinstance(rule, ForwardForward) and not rule.claims.same_net
    assert rule.net[0].affine.in_channels == DIGITS.problem.input_shape[0] + 1


@pytest.mark.parametrize("name", RULES)
def test_same_seed_same_net_other_seed_other_net(name: str) -> None:
    chosen = contender(name, SETTING)
    one, again, other = (chosen.build(SETTING, seed) for seed in (0, 0, 1))
    weights = [next(rule.net.parameters()) for rule in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_backprop_and_controls_are_always_there() -> None:
    labels = [c.label for c in _contenders(["signal-propagation"], SETTING, (), DIGITS)]
    assert labels == ["signal-propagation", "backprop", "backprop · linear", "backprop · frozen"]


def test_a_net_of_its_own_brings_backprop_and_a_frozen_readout_on_that_net() -> None:
    labels = {c.label for c in _contenders(["forward-forward", "soft-wta"], SETTING, (), DIGITS)}
    assert {f"backprop · on the net of {rule}" for rule in ("forward-forward", "soft-wta")} <= labels
    assert {"backprop · frozen on the net of forward-forward", "soft-wta · frozen on the net of soft-wta"} <= labels


def test_controls_share_the_net_and_the_jitter_but_not_the_label() -> None:
    plain = contender("forward-forward", SETTING)
    conv = replace(plain, variant="conv", net="conv", widths=(4, 6), label_inputs=10, options={"peer": 0.0})
    shaken = replace(plain, variant="jitter", jitter=2)
    again = replace(plain, variant="other options", options={"peer": 0.0}, label_inputs=10)
    normal = replace(plain, variant="normal", net_options={"norm": True})
    found = {c.variant: c for c in controls([plain, conv, shaken, again, normal], SETTING)}
    names = ["forward-forward", *(f"forward-forward, {variant}" for variant in ("conv", "jitter", "normal"))]
    own = [f"{kind}on the net of {name}" for name in names for kind in ("", "frozen ")]
    assert list(found) == ["", "linear", "frozen", *own]
    for kind in ("", "frozen "):
        on_conv, on_shaken, on_normal = (found[f"{kind}on the net of {name}"] for name in names[1:])
        assert on_normal.net_options == {"norm": True} and not on_conv.net_options
        assert (on_conv.net, on_conv.widths, on_conv.jitter, on_shaken.jitter) == ("conv", (4, 6), 0, 2)
        assert not any(c.label_inputs or c.options for c in (on_conv, on_shaken))


def test_data_come_in_the_shape_that_a_contenders_net_takes() -> None:
    vectors = Setting("digits", DIGITS.flat().problem, "mlp", 8, 2)
    images = Setting("digits", DIGITS.problem, "conv", 4, 2)
    plain = contender("signal-propagation", vectors)
    for setting, net, shape in (
        (vectors, "", (64,)),
        (vectors, "conv", (1, 8, 8)),
        (images, "", (1, 8, 8)),
        (images, "mlp", (64,)),
        (vectors, "spiking", (64,)),
        (vectors, "rates", (64,)),
        (images, "local", (1, 8, 8)),
    ):
        for data in (DIGITS, DIGITS.flat()):
            made = plan(replace(plain, net=net), setting, data, 0, Budget(epochs=1), Process())
            assert made.task.shape == made.setting.problem.input_shape == shape
            assert made.columns()["net"] == (net or setting.net)
            x, y = made.task.train.batch(slice(0, 4))
            made.contender.build(made.setting, 0).step(x, y)


def test_jitter_of_what_is_no_image_is_refused() -> None:
    part = Split(np.zeros((4, 6), dtype=np.uint8), np.arange(4), scale=1.0)
    data = divided("vectors", {"train": part, "validation": part, "test": part}, ("a", "b", "c", "d"))
    setting = Setting("vectors", data.problem, "mlp", 8, 2)
    with pytest.raises(UsageError, match="inputs are none"):
        plan(replace(contender("backprop", setting), jitter=1), setting, data, 0, Budget(epochs=1), Process())


@pytest.mark.parametrize("name", RULES)
def test_frozen_controls_learn_nothing_but_the_readout(name: str) -> None:
    x, y = torch.rand(16, 64), torch.arange(16) % 10
    for control in controls([contender(name, SETTING)], SETTING):
        if not control.frozen:
            continue
        rule = control.build(SETTING, 0)
        hidden = rule.net[: len(rule.net) - control.output]
        before = {k: v.clone() for k, v in hidden.state_dict().items()}
        everything = {k: v.clone() for k, v in rule.named_parameters()}
        rule.step(x, y)
        assert all(torch.equal(v, before[k]) for k, v in hidden.state_dict().items())
        assert any(not torch.equal(v, everything[k]) for k, v in rule.named_parameters())


def test_depths_have_nearly_equal_parameters() -> None:
    task = load("digits").flat()
    first, *others = _settings(task, "mlp", 128, [2, 4, 8])
    for setting in others:
        assert parameters(setting) == pytest.approx(parameters(first), rel=0.03)
        assert setting.width < first.width


def test_unsupported_nets_bring_no_controls() -> None:
    setting = Setting("images", Problem((1, 8, 8), 10), "conv", 8, 2)
    labels = [c.label for c in _contenders(None, setting, (), DIGITS)]
    assert not any("soft-wta" in label and "·" in label for label in labels)
    assert "soft-wta" in labels


def test_set_changes_the_plain_contender_alone() -> None:
    chosen = [contender("backprop", SETTING), *controls([], SETTING)[1:]]
    changed = override(chosen, ["backprop.lr=0.5", "backprop.batch_size=7", "backprop.schedule=fall"])
    assert changed[0].optimizer["all"].arguments["lr"] == 0.5
    assert (changed[0].batch_size, changed[0].schedule) == (7, "fall")
    assert changed[1:] == chosen[1:]


def test_set_reaches_the_rule() -> None:
    (changed,) = override([contender("predictive-coding", SETTING)], ["predictive-coding.sweeps=3"])
    assert changed.options["sweeps"] == 3
    assert changed.build(SETTING, 0).sweeps == 3
    (changed,) = override([contender("almeida-pineda", SETTING)], ["almeida-pineda.sweeps=7"])  # of the base class
    assert changed.build(SETTING, 0).solver.sweeps == 7


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("backprop", "write it as rule.name=value"),
        ("backprob.lr=1", "did you mean 'backprop'"),
        ("predictive-coding.sweep=1", "has no hyperparameter 'sweep'; did you mean 'sweeps'"),
        ("predictive-coding.sweeps=many", "is of kind int"),
        ("backprop.lr=fast", "a positive number"),
        ("backprop.lr=-1", "a positive number"),
        ("backprop.batch_size=0", "a positive whole number"),
        ("backprop.schedule=never", "the schedules are"),
        ("backprop.net=1", "has no hyperparameter 'net'"),
    ],
)
def test_bad_settings_are_refused(setting: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        override([contender("backprop", SETTING), contender("predictive-coding", SETTING)], [setting])


@pytest.mark.parametrize("net", ["spiking", "rates", "sign"])
@pytest.mark.parametrize("name", RULES)
def test_on_nets_without_derivatives_or_in_time_a_rule_teaches_every_block_or_says_why_not(name: str, net: str) -> None:
    setting = replace(SETTING, net="mlp" if net == "sign" else net, width=16)
    chosen = reference(setting) if name == "backprop" else contender(name, setting)
    x, y = DIGITS.flat().train.batch(slice(0, 32))
    try:
        rule = replace(chosen, act="sign" if net == "sign" else chosen.act).build(setting, 0)
        before = [p.detach().clone() for p in rule.net.parameters()]
        for _ in range(3):
            rule.step(x, y)
    except UsageError:
        return
    assert all(torch.isfinite(predict(x)).all() for predict in rule.eval().predictors().values())
    pairs = list(zip(rule.net.parameters(), before, strict=True))
    if isinstance(rule, Hebbian | Mixed):  # which leave biases as they are
        pairs = [(p, q) for p, q in pairs if p.dim() > 1]
    if name not in ("cascaded-forward", "soft-wta"):  # which leave the net, or its biases, as they are
        assert all(not torch.equal(p, q) for p, q in pairs)


def test_backprop_goes_through_spikes_by_a_surrogate() -> None:
    options = {c.label: c.net_options for c in _contenders([], replace(SETTING, net="spiking"), (), DIGITS)}
    assert options["backprop"] == options["backprop · frozen"] == {"derivative": True}
    options = {c.label: c.net_options for c in _contenders(["e-prop"], SETTING, (), DIGITS)}
    rows = {"steps": 8, "rows": True}
    assert options["e-prop"] == rows and options["backprop · on the net of e-prop"] == {**rows, "derivative": True}


def test_a_rule_that_cannot_make_its_first_step_does_not_stop_the_others(tmp_path: Path) -> None:
    names = ["direct-random-target-projection", "signal-propagation"]
    frame = compare("digits", names, net="spiking", width=8, seeds=1, samples=64, store=tmp_path / "s.db")
    last = frame[frame["split"].eq("test") & frame["samples"].eq(64)]
    assert set(last["rule"]) == {"signal-propagation", "backprop"}
    why = frame[frame["rule"] == names[0]][["status", "reason"]].drop_duplicates().to_dict("records")
    assert [row["status"] for row in why] == ["unsupported"] and "an activation on the way has none" in why[0]["reason"]
