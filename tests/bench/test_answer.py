"""Answers come from before the update, whether they are overheard in the learning pass or predicted before it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import Backprop, Claims, Rule, UsageError, nets, rules
from altprop.analysis.trace import Trace
from altprop.bench import answer as answering
from altprop.bench import meter
from altprop.bench.answer import ANSWER, PROBES, Answering, Voice, unfit
from altprop.bench.contenders import contender
from altprop.bench.streamed import streamed
from every import DIGITS, SETTING, batches, rule_of, same, state

STEPS = PROBES + 5
ONES = batches(1, STEPS)
OVERHEARD = {
    "backprop",
    "forward-forward",
    "signal-propagation",
    "mono-forward",
    "cascaded-forward",
    "pepita",
    "error-forward",
    "direct-feedback-alignment",
    "direct-random-target-projection",
    "forward-gradient",
    "weight-perturbation",
    "difference-target-propagation",
    "dual-propagation",
    "dendritic-microcircuit",
    "bidirectional-predictive-coding",
    "backward-prediction",
    "forward-backward-lateral",
    "soft-wta",
    "sign-direct-feedback-alignment",
    "direct-kolen-pollack",
    "three-factor",
    "local-classifier",
    "predsim",
    "info-pro",
    "deep-supervision",
    "checkpointed-backprop",
    "accumulated-backprop",
    "soft-hebb",
    "competitive",
    "krotov-hopfield",
    "bcm",
    "foldiak",
    "stdp",
}
"""Rules whose learning pass computes the scores of the net as it was."""


def streaming(name: str, dtype: torch.dtype = torch.float32) -> Rule:
    return streamed(contender(name, SETTING), ("digits", "mlp"), 32).build(SETTING, 0).to(dtype)


@pytest.mark.parametrize("name", rules.RULES)
def test_overheard_answers_are_those_of_the_net_before_the_step(name: str) -> None:
    """In float64 too, where rounding is far below what an update changes."""
    for dtype, near in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        one, two = streaming(name, dtype), streaming(name, dtype)
        if unfit(one, 1) is not None:
            assert not one.claims.batch_of_one
            continue
        hears, predicts = Answering(one), Answering(two, overhear=False)
        for i, (x, y) in enumerate(batches(1, STEPS, dtype)):
            found, true = hears.step(x, y), predicts.step(x, y)
            torch.testing.assert_close(found.scores, true.scores, rtol=near, atol=near)
            assert hears.gap > 0 or torch.equal(found.scores, true.scores)
            assert found.one_pass == (i >= PROBES and name in OVERHEARD) and not true.one_pass
            assert found.checked == (i < PROBES) and not true.checked
        assert (hears.voice is not None) == (name in OVERHEARD)
        assert same(state(one), state(two))  # being listened to changes nothing


class Peeking(Rule):
    """Learns the label by heart: from its step on, the net answers every input with it. `after`: how often it looks at
    its own answer once it knows; `before`: before."""

    claims = Claims(
        later_blocks="none", forward_lock=False, update_lock=False, order="forward", differentiable=False,
        memory="flat", training_only=False, same_net=True, labels=True, batch_of_one=True,
    )  # fmt: skip

    def __init__(self, net: nn.Sequential, before: int, after: int, late: int = 2**40) -> None:
        super().__init__(net)
        self.before, self.after, self.late, self.steps = before, after, late, 0

    def learn(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        assert y is not None
        self.steps += 1
        for _ in range(self.before if self.steps <= self.late else 0):
            self.net(x)
        layer = nets.output_layer(self.net)
        assert layer is not None
        self.assign(layer.bias, 100.0 * nn.functional.one_hot(y[0], 10))
        for _ in range(self.after):
            self.net(x)
        return {"loss": x.new_zeros(())}


def peeked(before: int, after: int, late: int = 2**40, steps: int = 300) -> tuple[Answering, float]:
    """The share of right answers to labels drawn at random."""
    generator = torch.Generator().manual_seed(0)
    rule = Peeking(nets.mlp([8], classes=10, generator=generator), before, after, late)
    hears, right = Answering(rule), 0
    for _ in range(steps):
        x, y = torch.rand(1, 8, generator=generator), torch.randint(10, (1,), generator=generator)
        right += int(hears.step(x, y).right)
        assert int(rule(x).argmax()) == int(y)  # it does know by now
    return hears, right / steps


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2)])
def test_an_update_that_reveals_the_label_does_not_help(before: int, after: int) -> None:
    hears, right = peeked(before, after)
    assert right < 0.2
    assert hears.voice == (Voice(("net.0.affine",), 0) if before else None)


def test_a_rule_that_takes_another_way_later_on_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "AGAIN", 10)
    hears, _ = peeked(1, 1, late=25, steps=29)
    assert hears.voice is not None  # its first call is now the one after the update, until the next check
    hears, _ = peeked(1, 1, late=25, steps=31)
    assert hears.voice is None
    with pytest.raises(UsageError, match=r"Peeking gave no answer in step 26.*overhear=False"):
        peeked(1, 0, late=25)


def test_dropout_and_batch_statistics_need_a_pass_of_their_own() -> None:
    for extra, size in ((nn.Dropout(0.5), 1), (nn.BatchNorm1d(16), 4)):
        net = nn.Sequential(nn.Sequential(nn.Linear(64, 16), extra, nn.ReLU()), nn.Linear(16, 10))
        hears = Answering(Backprop(net))
        found = [hears.step(x, y) for x, y in batches(size, PROBES + 2)]
        assert hears.voice is None and not found[-1].one_pass
    assert "batch normalisation" in (unfit(hears.rule, 1) or "") and unfit(hears.rule, 4) is None


def test_a_list_of_heads_is_heard_together_and_one_head_alone() -> None:
    voices = {}
    for name in ("forward-forward", "mono-forward", "cascaded-forward", "direct-feedback-alignment"):
        hears = Answering(rule_of(name))
        for x, y in ONES:
            hears.step(x, y)
        voices[name] = hears.voice
    assert voices["forward-forward"] == Voice(("heads.1", "heads.2"), 0)
    assert voices["mono-forward"] == Voice(("heads.2",), 0)
    assert voices["cascaded-forward"] == Voice(("heads.0", "heads.1", "heads.2"), 0)
    assert voices["direct-feedback-alignment"] is not None


def counted(name: str, **options: Any) -> dict[str, float]:
    """Operations from a sample's arrival to each event."""
    rule = streaming(name)
    hears = Answering(rule, **options)
    for x, y in ONES:
        hears.step(x, y)
    with Trace(meter.named_tensors(rule)) as trace:
        return dict(hears.step(*ONES[0], lambda: float(trace.operations)).delays)


def test_delays_count_what_came_before() -> None:
    widths = (64, 64, 64, 10)
    forward = [2 * a * b for a, b in pairwise(widths)]
    found = counted("backprop")
    assert found[ANSWER] == sum(forward)
    assert found["blocks.0"] == found["blocks.2"] == 3 * sum(forward) - forward[0]  # after the whole way back
    found = counted("signal-propagation")
    assert found["blocks.0"] == found["target"] < found["blocks.1"] < found[ANSWER] < found["blocks.2"]
    assert found[ANSWER] - found["blocks.1"] == forward[2]
    waiting = counted("signal-propagation", overhear=False)
    assert waiting[ANSWER] == sum(forward) and waiting["blocks.0"] == sum(forward) + found["blocks.0"]


def test_delays_are_in_the_order_of_the_clock() -> None:
    rule = streaming("direct-random-target-projection")
    hears = Answering(rule)
    for x, y in ONES:
        found = hears.step(x, y)
    assert list(found.delays) == ["blocks.0", "blocks.1", ANSWER, "blocks.2"]
    times = list(found.delays.values())
    assert times[0] > 0 and times == sorted(times)


def test_nothing_is_left_on_the_rule() -> None:
    rule = streaming("backprop")
    hears = Answering(rule)
    for x, y in ONES:
        hears.step(x, y)
    with pytest.raises(UsageError):
        hears.step(*DIGITS.train.batch(slice(0, 0)))
    assert not any(module._forward_hooks for module in rule.modules())
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in rule.optimizers.values())
