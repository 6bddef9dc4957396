"""Mixed against its two rules trained by hand, one on the features of the other."""

from functools import partial

import pytest
import torch
from torch import nn

from altprop import nets
from altprop.analysis.audit import audit
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from altprop.rules.hebbian.mixed import Mixed
from altprop.rules.hebbian.pca import HebbianPCA

SGD = partial(torch.optim.SGD, lr=0.1)


def net() -> nn.Sequential:
    return nets.mlp([6, 8, 7], classes=3, act="tanh", generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.filterwarnings("ignore:.*only rank")
def test_it_is_its_two_rules() -> None:
    whole, apart = net(), net()
    plain = {"inputs": "as they are", "optimizer": SGD}
    rule = Mixed(whole, lower=plain, optimizer=SGD)
    below = HebbianPCA(nn.Sequential(apart[0]), Problem((6,), 3), readout=None, **plain)
    above = DirectFeedbackAlignment(nn.Sequential(*list(apart)[1:]), Problem((8,), 3), optimizer=SGD)
    above.feedback_0.copy_(rule.above.feedback_0)
    draw = torch.Generator().manual_seed(1)
    for step in range(6):
        x = torch.randn(5, 6, dtype=torch.float64, generator=draw)
        y = torch.randint(3, (5,), generator=draw)
        rule.progress = below.progress = above.progress = step / 6
        loss = rule.step(x, y)["loss"]
        assert torch.equal(loss, above.step(below.absorb(x), y)["loss"])
    for p, q in zip(whole.parameters(), apart.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(rule(x), whole(x))
    assert list(rule.optimizers) == ["below/blocks.0", "above/blocks.0", "above/blocks.1"]


def test_schedules_reach_both_rules() -> None:
    whole = net()
    rule = Mixed(whole, optimizer=SGD, schedule=lambda progress: 0.0)
    before = [p.detach().clone() for p in whole.parameters()]
    rule.step(torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1]))
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), before, strict=True))


def test_a_convolution_below() -> None:
    conv = nets.conv((1, 8, 8), [4, 5], classes=3)
    rule = Mixed(conv, Problem((1, 8, 8), 3), above="backprop")
    before = [p.detach().clone() for p in conv.parameters() if p.dim() > 1]
    rule.step(torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1]))
    moved = [p for p in conv.parameters() if p.dim() > 1]
    assert not any(torch.equal(p, q) for p, q in zip(moved, before, strict=True))


@pytest.mark.filterwarnings("ignore:.*only rank")
def test_both_look_at_themselves_when_the_whole_does() -> None:
    rule, looked = Mixed(net(), optimizer=SGD), []
    for _ in range(5):
        rule.step(torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1]))
        looked.append([part.looking for part in (rule, rule.below, rule.above)])
    assert looked == [[True] * 3, [True] * 3, [False] * 3, [True] * 3, [False] * 3]


def test_the_rule_above_decays_by_the_schedule() -> None:
    rule = Mixed(net(), above="kolen-pollack", upper={"decay": 0.1}, optimizer=SGD, schedule=lambda progress: 0.0)
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1]))
    assert all(torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


def test_greedy_blocks_above_have_the_whole_schedule_each() -> None:
    greedy = {"order": "greedy"}
    rule = Mixed(net(), above="local-classifier", upper=greedy, optimizer=SGD, schedule=lambda progress: 1.0 - progress)
    rule.progress = 0.25  # half of the first block's turn
    rule.step(torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1]))
    assert rule.optimizers["above/blocks.0"].param_groups[0]["lr"] == 0.05
    assert rule.optimizers["above/blocks.1"].param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("options", [{"above": "backprop", "below": "competitive"}, {"above": "local-classifier"}])
def test_what_it_says_of_itself_depends_on_the_rule_above(options: dict[str, str]) -> None:
    def make(net: nn.Sequential, problem: Problem, generator: torch.Generator) -> Mixed:
        return Mixed(net, problem, generator=generator, **options)

    assert not [finding for finding in audit(make) if not finding.holds]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"blocks": 0}, "give at least one of the net's 3 blocks to each rule"),
        ({"blocks": 3}, "give at least one of the net's 3 blocks to each rule"),
        ({"below": "backprop"}, "it must be a rule that learns from inputs alone"),
        ({"above": "three-factors"}, "did you mean 'three-factor'"),
    ],
)
def test_bad_arguments(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Mixed(net(), **options)
