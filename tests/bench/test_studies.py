"""The studies of sleep, of collaboration and the portraits, small, on the digits."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from altprop import nets
from altprop.bench import collaboration, compare, dead_neurons, hebbian_portraits, portraits, sleep
from altprop.bench.evaluate import accuracy
from altprop.bench.publish import read_rows
from altprop.bench.sleep import BOTH, POSITIVES
from altprop.bench.teaching import teach
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.rules.hebbian.competition import Competitive
from altprop.tasks import load

SLEEP = sleep.Study("digits", 16, epochs=2, seeds=2, lengths=(0, 8), multiples=(1.0, 1e30), steps=(0, 2, 40))
PORTRAIT = portraits.Study("digits", 32, epochs=12, samples=100, units=10)


@pytest.fixture(autouse=True)
def _no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "audit_all", lambda *_: None)


def test_sleep_is_published(tmp_path: Path) -> None:
    sleep.run(SLEEP, tmp_path, tmp_path / "s.db")
    folder = tmp_path / "forward-forward-sleep"
    names = [f"{name}.{ending}" for name in ("lengths", "deprivation") for ending in ("png", "svg")]
    assert {path.name for path in folder.iterdir()} == {*names, "rows.csv", "runs.csv", "deprivation.csv"}
    rows = read_rows(folder)
    assert set(rows["variant"]) == {"both at once, rate x 1", "phases of 8, rate x 1"}  # the other rate diverges
    assert set(rows["seed"]) == {0, 1}
    deprived = pd.read_csv(folder / "deprivation.csv")
    start = deprived[deprived["steps"] == 0].pivot_table(index=["seed", "predictor"], columns="condition")["value"]
    assert (start[BOTH] == start[POSITIVES]).all()
    end = deprived[deprived["steps"] == 40].pivot_table(index=["seed", "predictor"], columns="condition")["value"]
    assert (end[BOTH] != end[POSITIVES]).any()
    text = (tmp_path / "forward_forward_sleep.md").read_text()
    assert "| both at once | 1 |" in text and "| positives only | energy |" in text


def test_positives_alone_make_wrong_labels_good_too() -> None:
    data = SLEEP.data()
    rule = SLEEP.contender(sleep.FOREVER).build(SLEEP.setting(), 0)
    assert isinstance(rule, ForwardForward)
    x, y = data.test.batch(slice(0, 100))
    wrong = (y + 1) % 10
    before = portraits.goodness(rule, x, wrong)
    sleep.go_on(rule, SLEEP, 0)
    after = portraits.goodness(rule, x, wrong)
    assert all(float(after[i].mean()) > float(before[i].mean()) for i in before)


def test_teaching_is_what_the_bench_does(tmp_path: Path) -> None:
    plan = SLEEP.plan(0, 1.0, 0)
    frame = compare.carry_out([plan], tmp_path / "s.db")
    rule = plan.contender.build(plan.setting, 0)
    with plan.process.applied(0):
        teach(rule, plan.task, plan.batch_size, SLEEP.epochs, 0)
        rule.eval()
        found = accuracy(rule.predictors()["head"], plan.task.test, None, torch.device("cpu"))
    last = frame[(frame["split"] == "test") & (frame["predictor"] == "head")].sort_values("samples").iloc[-1]
    assert found == last["value"]


def test_collaboration_is_published_block_by_block(tmp_path: Path) -> None:
    study = collaboration.Study("digits", 16, depth=2, epochs=2, seeds=2, multiples=(1e-6, 1.0), thresholds=(1.0,))
    table = collaboration.run(study, tmp_path)
    assert list(table["read"]) == ["block 1", "block 2", "all blocks", "head", "energy"]
    assert (table["alone"] != table["collaborating"]).any()
    rows = pd.read_csv(tmp_path / "forward-forward-collaboration" / "rows.csv")
    assert set(rows["multiple"]) == {1.0}  # blocks that hardly learn are worse
    by = rows.set_index(["seed", "condition", "read"])["test"]
    rule = study.trained(study.data(), "collaborating", 1.0, 1.0, seed=1)
    x, y = study.data().test.batch(slice(None))
    for name, predict in rule.predictors().items():
        with torch.no_grad():
            assert by[1, "collaborating", name] == float((predict(x).argmax(1) == y).double().mean())
    # The rule reads all blocks but the first, so with two blocks its energy is the second's goodness.
    assert (by[:, :, "energy"] == by[:, :, "block 2"]).all()
    with torch.no_grad():
        rule.read = rule.learners
        assert by[1, "collaborating", "all blocks"] == float((rule.energy(x).argmax(1) == y).double().mean())
    text = (tmp_path / "forward_forward_collaboration.md").read_text()
    assert "| block 1 |" in text and "rate x 1 and threshold x 1 alone, rate x 1" in " ".join(text.split())


def test_portraits_are_published_and_tell_right_from_wrong(tmp_path: Path) -> None:
    portraits.run(PORTRAIT, tmp_path)
    folder = tmp_path / "forward-forward-portraits"
    names = {
        f"{name}.{ending}" for name in ("activities", "goodness", "fields", "beliefs") for ending in ("png", "svg")
    }
    assert {path.name for path in folder.iterdir()} == {*names, "goodness.csv"}
    mean = pd.read_csv(folder / "goodness.csv").groupby(["block", "label"])["goodness"].mean().unstack()
    assert len(mean) == 3 and (mean["right"] > mean["wrong"]).all()
    text = (tmp_path / "forward_forward_portraits.md").read_text()
    assert "Of 100 test images" in text and "3 blocks of 32 units" in text


def test_hebbian_portraits_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ("hebbian-pca", "competitive")
    drawn_wins: dict[str, torch.Tensor] = {}
    draw = hebbian_portraits.winners.draw_winners
    monkeypatch.setattr(
        hebbian_portraits.winners, "draw_winners", lambda wins, to: drawn_wins.update(wins) or draw(wins, to)
    )
    hebbian_portraits.run(hebbian_portraits.Study("digits", 16, "digits", units=10, rules=rules), tmp_path)
    folder = tmp_path / "hebbian_portraits"
    drawn = {"winners", "fields-hebbian-pca", "fields-competitive", "fields-soft-hebb-convolutions"}
    names = {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {*names, "rows.csv"}
    rows = pd.read_csv(folder / "rows.csv")
    assert list(rows["rule"]) == ["hebbian-pca", "competitive", *["soft-hebb, convolutions"] * 2]
    assert [int((won == 0).sum()) for won in drawn_wins.values()] == rows["dead"][1:].tolist()
    assert [len(won) for won in drawn_wins.values()] == rows["units"][1:].tolist() == [64, 96, 384]
    assert rows["test"].between(0.1, 1).all()
    assert "| competitive | digits | " in (tmp_path / "hebbian_portraits.md").read_text()


def test_fields_of_competitors_are_those_that_win_most() -> None:
    study = hebbian_portraits.Study("digits", 8, "digits", rules=("competitive",))
    _, data, chosen, setting = next(study.subjects())
    rule = chosen.build(setting, 0)
    assert isinstance(rule, Competitive)
    rule.wins(0)[:] = torch.arange(32.0)
    found = hebbian_portraits.fields(rule, data, 3)
    weights = nets.affine(rule.net[0])
    assert weights is not None
    assert torch.equal(found.flatten(1), weights.get_parameter("weight").detach()[[31, 30, 29]])


def test_goodness_is_that_of_the_rule() -> None:
    rule = SLEEP.contender(0).build(SLEEP.setting(), 0)
    assert isinstance(rule, ForwardForward)
    x, y = load("digits").flat().test.batch(slice(0, 5))
    found = portraits.goodness(rule, x, y)
    with torch.no_grad():
        energy = rule.energy(x).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(sum(found[i] for i in rule.read), energy)


def test_dead_neurons_are_published(tmp_path: Path) -> None:
    study = dead_neurons.Study("digits", 16, epochs=2, seeds=2, thresholds=(1.0, 4.0), images=50, looks=(0, 300))
    table = dead_neurons.run(study, tmp_path)
    folder = tmp_path / "dead-neurons"
    assert {path.name for path in folder.iterdir()} == {"dead.png", "dead.svg", "rows.csv"}
    by = table.set_index(["column", "threshold", "seed", "samples", "block"])["dead"]
    assert len(by) == 4 * 2 * 2 * 3 * 2 and by.index.is_unique
    assert set(table["samples"]) == {0, 384, 2 * len(study.data().train)}
    for column in table["column"].unique()[1:]:  # the same net before training
        assert (by[column, :, :, 0] == by["signal propagation,\nvoltage", :, :, 0]).all()
    start, end = by.xs(0, level="samples"), by.xs(table["samples"].max(), level="samples")
    assert (start["backprop,\nno surrogate"] == end["backprop,\nno surrogate"]).all()  # nothing but the readout learns
    assert (start["signal propagation,\nvoltage"] != end["signal propagation,\nvoltage"]).any()
    assert start[:, 4.0].mean() > start[:, 1.0].mean()
    assert "| backprop, no surrogate |" in (tmp_path / "dead_neurons.md").read_text()


def test_a_unit_that_never_fires_is_dead() -> None:
    net = nets.spiking([2, 3], steps=4)
    with torch.no_grad():
        net[0].affine.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.3, 0.0]]))
        net[0].affine.bias.zero_()
    assert dead_neurons.dead(net, torch.tensor([[0.0, 0.0], [1.0, 0.0]])) == [pytest.approx(1 / 3)]
    assert dead_neurons.dead(net, torch.tensor([[0.9, 0.0]])) == [pytest.approx(2 / 3)]
