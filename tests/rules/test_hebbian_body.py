"""What all rules with a body that learns without labels share: what they say when it goes wrong, and readouts."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets, rules
from altprop.errors import Diverged, UsageError
from altprop.rule import Problem, Rule

NAMES = ("hebbian-pca", "lateral-pca", "hebbian-ica", "competitive", "krotov-hopfield", "bcm", "foldiak", "soft-hebb",
         "soft-wta", "three-factor")  # fmt: skip
every = pytest.mark.parametrize("name", NAMES)
PROBLEM = Problem((6,), 3)


def body(name: str, act: nn.Module, **options: Any) -> Rule:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
        layer.bias.zero_()
    blocks = [nets.Block(layer, None, act)]
    if name == "three-factor":
        blocks.append(nets.Block(nets.linear(4, 3, "lecun", torch.Generator().manual_seed(0))))
    return rules.find(name)(nn.Sequential(*blocks), PROBLEM, **options)


def batch(size: int = 20) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=draw), torch.randint(3, (size,), generator=draw)


@every
def test_activations_that_write_in_place_change_nothing(name: str) -> None:
    apart, in_place = (body(name, nn.ReLU(inplace=inplace)) for inplace in (False, True))
    for _ in range(3):
        for rule in (apart, in_place):
            rule.step(*batch())
    mine, others = apart.state_dict(), in_place.state_dict()
    assert all(torch.equal(mine[key], others[key]) for key in mine)


WEIGHTS = "weights of block 0 grew .* its rate, {rate:.3g}, is above what is stable"
LOSS = "the loss is nan after .* start anew with rates below {rate:.3g}, "


@pytest.mark.parametrize(
    ("name", "rate", "options", "words"),
    [
        ("bcm", 10.0, {"normalise": False, "competition": "none"}, WEIGHTS),
        ("competitive", 30.0, {"pull": "oja", "similarity": "dot"}, WEIGHTS),
        ("competitive", 3.0, {}, LOSS),  # within the step after which they are looked at
        ("foldiak", 50.0, {}, WEIGHTS),
        ("soft-wta", 50.0, {}, WEIGHTS),
    ],
)
def test_weights_that_grow_without_bound_are_said_so(
    name: str, rate: float, options: dict[str, Any], words: str
) -> None:
    rule = body(name, nn.ReLU(), optimizer=partial(torch.optim.SGD, lr=rate), **options)
    x, y = batch()
    with pytest.raises(UsageError, match=words.format(rate=rate)):
        for _ in range(600):
            rule.step(3.0 * x, y)


@pytest.mark.parametrize("name", ["soft-hebb", "krotov-hopfield"])
def test_weights_that_should_come_to_length_1_and_grow_are_said_so(name: str) -> None:
    x, y = batch()
    rule = body(name, nn.ReLU(), optimizer=partial(torch.optim.SGD, lr=100.0))
    with pytest.raises(Diverged, match=r"weights of block 0 grow .* its rate, 100, is above what is stable: choose a"):
        for _ in range(8):
            rule.step(x, y)
    calm = body(name, nn.ReLU(), optimizer=partial(torch.optim.SGD, lr=0.1))
    for _ in range(100):
        calm.step(x, y)


def test_losers_that_are_free_may_grow() -> None:
    x, y = batch()
    rule = body("krotov-hopfield", nn.ReLU(), losers="free", optimizer=partial(torch.optim.SGD, lr=100.0))
    for _ in range(8):
        rule.step(x, y)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("bcm", "foldiak", "three-factor")])
def test_units_that_are_all_dead_are_said_so(name: str) -> None:
    rule = body(name, nn.Threshold(1e6, 0.0))
    with pytest.warns(UserWarning, match=r"no unit of block \d answers any input of a batch, so all are dead") as said:
        rule.step(*batch())
    assert said[0].filename == __file__  # it points at the step


WITH_OUTPUT = ("feedback-alignment", "direct-feedback-alignment", "direct-random-target-projection", "predsim",
               "three-factor", "deep-supervision")  # fmt: skip


@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_dead_blocks_are_said_so_of_other_rules_too_and_an_output_of_zero_is_none(name: str) -> None:
    net = nets.mlp([6, 5], classes=3)
    with torch.no_grad():
        for p in net[1].parameters():
            p.zero_()
    rules.find(name)(copy.deepcopy(net)).step(*batch())
    with torch.no_grad():
        net[0].affine.bias.fill_(-100.0)
    with pytest.warns(UserWarning, match="no unit of block 0 answers"):
        rules.find(name)(net).step(*batch())


@every
def test_a_frozen_weight_stays_though_its_bias_is_not(name: str) -> None:
    if name == "three-factor":
        pytest.skip("it learns biases, too")
    layer = nn.Linear(6, 4)
    layer.weight.requires_grad_(False)
    before = copy.deepcopy(layer.state_dict())
    rule = rules.find(name)(nn.Sequential(nets.Block(layer, None, nn.Tanh())), PROBLEM)
    rule.step(*batch())
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_ridge_must_be_solved_before_a_prediction() -> None:
    rule = body("competitive", nn.ReLU(), readout="ridge")
    x, y = batch()
    rule(x)  # nothing was learnt: all scores are 0
    rule.step(x, y)
    with pytest.raises(UsageError, match=r"call rule.finish\(\) before you predict"):
        rule(x)
    rule.finish()
    rule(x)


def test_class_means_of_rare_classes_are_their_means_while_features_change() -> None:
    """Of 40 classes, one at a time: what is remembered of a class counts less than one sample when it comes again."""
    net = nn.Sequential(nets.Block(nn.Linear(40, 40, bias=False), None, nn.ReLU())).requires_grad_(False)
    with torch.no_grad():
        net[0].affine.weight.copy_(torch.eye(40))
    rule = rules.find("competitive")(net, Problem((40,), 40), readout="class-mean")
    rule.head.memory = 0.5
    rule.progress = 0.1
    for c in range(40):
        rule.step(torch.eye(40)[c : c + 1], torch.tensor([c]))
    torch.testing.assert_close(rule.head.layer.weight, torch.eye(40))
    assert (rule(torch.eye(40)).argmax(1) == torch.arange(40)).all()


def test_classes_that_were_never_seen_leave_the_loss_finite() -> None:
    rule = body("competitive", nn.ReLU(), readout="class-mean")
    x, _ = batch()
    assert float(rule.step(x, torch.zeros(20, dtype=torch.int64))["loss"]) == pytest.approx(
        float(torch.tensor(3.0).log())
    )
    assert float(rule.step(x, torch.arange(20) % 3)["loss"]) < 100.0
