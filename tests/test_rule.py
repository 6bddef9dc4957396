"""The contract's own behaviour, on small rules written here."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import Backprop, Diverged, Problem, SignalPropagation, UsageError, nets, rules
from altprop.rule import Claims, Metrics, Rule
from altprop.schedules import constant, cosine, fall, hold_then_fall

SGD = partial(torch.optim.SGD, lr=0.5)


class Push(Rule):
    """Adds one to every weight's gradient: an update whose size can be read off."""

    claims = Claims("none", False, False, "forward", False, "flat", False, True, False, True)

    def learn(self, x: Tensor, y: Tensor | None) -> Metrics:
        for part, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            self.update(part)
        return {"loss": torch.zeros(())}


def test_parts_are_the_blocks_that_can_learn() -> None:
    net = nn.Sequential(nets.Block(pool=nn.Flatten()), *nets.mlp([4, 3], classes=2))
    net[1].requires_grad_(False)
    rule = Push(net, Problem((4,), 2), optimizer=SGD)
    assert list(rule.optimizers) == ["blocks.2"]


def test_update_steps_one_part_and_frees_its_gradient() -> None:
    rule = Push(nets.mlp([4, 3], classes=2), optimizer=SGD)
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    rule.step(torch.ones(1, 4))
    for name, parameter in rule.named_parameters():
        torch.testing.assert_close(parameter, before[name] - 0.5)
        assert parameter.grad is None


def test_schedule_multiplies_every_rate() -> None:
    rule = Push(nets.mlp([4, 3], classes=2), optimizer=SGD, schedule=fall)
    weight = rule.net[0].affine.weight
    before = weight.detach().clone()
    rule.progress = 0.75
    rule.step(torch.ones(1, 4))
    torch.testing.assert_close(weight, before - 0.5 * 0.25)
    rule.progress = 0.5  # the factor is of the base rate, not of the last one
    rule.step(torch.ones(1, 4))
    torch.testing.assert_close(weight, before - 0.5 * 0.75)


DEEP_RULES = (
    "backprop",
    "kolen-pollack",
    "weight-mirror",
    "local-classifier",
    "predsim",
    "info-pro",
    "deep-supervision",
)


@pytest.mark.parametrize("name", DEEP_RULES)
def test_a_loss_that_is_no_number_any_more_is_said_so(name: str) -> None:
    rule = rules.find(name)(nets.mlp([6, 8, 8], classes=3), optimizer=partial(torch.optim.SGD, lr=1e20))
    x, y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    with pytest.raises(Diverged, match=r"loss is (nan|inf) after \d+ batches.* start anew with rates below 1e\+20"):
        for _ in range(16):
            rule.step(x, y)


def test_optimizer_a_part() -> None:
    rule = Push(nets.mlp([4, 3], classes=2), optimizer={"blocks": SGD, "blocks.1": partial(torch.optim.SGD, lr=0.1)})
    assert [o.param_groups[0]["lr"] for o in rule.optimizers.values()] == [0.5, 0.1]
    with pytest.raises(UsageError, match=r"no optimizer for the part 'blocks\.0'"):
        Push(nets.mlp([4, 3], classes=2), optimizer={"head": SGD})


def test_assign_writes_the_value_itself() -> None:
    rule = Push(nets.mlp([4, 3], classes=2))
    value = torch.full((3, 4), 1e-30)
    rule.assign(rule.net[0].affine.weight, value)
    assert torch.equal(rule.net[0].affine.weight, value)
    assert rule.net[0].affine.weight.requires_grad


def test_tied_parameters_are_refused_unless_the_rule_can() -> None:
    block = nets.Block(nets.linear(4, 4, "kaiming", torch.Generator()), None, nn.ReLU())
    net = nn.Sequential(block, nets.Block(block.affine, None, nn.Tanh()), *nets.mlp([4], classes=2))
    with pytest.raises(UsageError, match=r"blocks\.1 shares a parameter"):
        Push(net, Problem((4,), 2))
    assert list(Backprop(net, Problem((4,), 2)).optimizers) == ["blocks.0", "blocks.2"]


def test_problem_is_read_off_the_net_or_asked_for() -> None:
    assert Push(nets.mlp([4, 3], classes=2)).problem == Problem((4,), 2)
    assert Push(nets.conv((1, 8, 8), [4], classes=2)).problem == Problem((1, None, None), 2)
    with pytest.raises(UsageError, match="problem must be given"):
        Push(nets.mlp([4, 3]))


def test_unsupported_net_is_refused_with_the_reason() -> None:
    with pytest.raises(
        UsageError, match="Backprop cannot train this net: it needs an output block: build the net with classes=2"
    ):
        Backprop(nets.mlp([4, 3]), Problem((4,), 2))


def test_a_rule_without_learn_says_so() -> None:
    rule = type("Empty", (Rule,), {"claims": Push.claims})(nets.mlp([4, 3], classes=2))
    with pytest.raises(TypeError, match="Empty has no learn"):
        rule.step(torch.ones(1, 4))


def test_labels_are_asked_for_only_where_they_are_needed() -> None:
    Push(nets.mlp([4, 3], classes=2)).step(torch.ones(1, 4))
    with pytest.raises(UsageError, match=r"call step\(x, y\)"):
        Backprop(nets.mlp([4, 3], classes=2)).step(torch.ones(1, 4))


def test_regression_targets_must_not_broadcast() -> None:
    rule = Backprop(nets.mlp([4, 3], classes=1), Problem((4,), 1, "regression"))
    with pytest.raises(UsageError, match=r"y has shape \(5,\), the problem's targets are \(batch, 1\)"):
        rule.step(torch.ones(5, 4), torch.ones(5))


def test_flat_images_hint() -> None:
    with pytest.raises(UsageError, match=r"flatten it with x\.flatten\(1\)"):
        Push(nets.mlp([4, 3], classes=2)).step(torch.ones(1, 1, 2, 2))


def test_step_puts_the_rule_into_training_mode() -> None:
    rule = Push(nets.mlp([4, 3], classes=2)).eval()
    rule.step(torch.ones(1, 4))
    assert rule.training


def test_state_dict_holds_parameters_and_buffers_only() -> None:
    rule = Push(nets.mlp([4, 3], classes=2))
    assert set(rule.state_dict()) == {f"net.{i}.affine.{k}" for i in (0, 1) for k in ("weight", "bias")}


def test_schedules() -> None:
    for schedule, values in (
        (constant, (1, 1, 1)),
        (fall, (1, 0.5, 0)),
        (cosine, (1, 0.5, 0)),
        (hold_then_fall, (1, 1, 0)),
    ):
        assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx(values)
    assert hold_then_fall(0.75) == pytest.approx(0.5)


def test_backprop_equals_torch_by_hand() -> None:
    net = nets.mlp([5, 7, 6], classes=3).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (8,), generator=generator)
    w0, b0, w1, b1, w2, b2 = (p.detach().clone() for p in net.parameters())
    h0 = (x @ w0.T + b0).clamp(min=0)
    h1 = (h0 @ w1.T + b1).clamp(min=0)
    d2 = (torch.softmax(h1 @ w2.T + b2, 1) - nn.functional.one_hot(y, 3)) / 8
    d1 = (d2 @ w2) * (h1 > 0)
    d0 = (d1 @ w1) * (h0 > 0)
    Backprop(net, optimizer=partial(torch.optim.SGD, lr=0.1)).step(x, y)
    expected = (w0 - 0.1 * d0.T @ x, b0 - 0.1 * d0.sum(0), w1 - 0.1 * d1.T @ h0, b1 - 0.1 * d1.sum(0))
    expected += (w2 - 0.1 * d2.T @ h1, b2 - 0.1 * d2.sum(0))
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=1e-12)


def test_backprop_learns_a_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    y = x @ torch.randn(4, 2, generator=generator)
    rule = Backprop(nets.mlp([4, 32], classes=2), Problem((4,), 2, "regression"))
    first = float(rule.step(x, y)["loss"])
    for _ in range(300):
        last = float(rule.step(x, y)["loss"])
    assert last < 0.05 * first


def test_a_part_that_nothing_reaches_does_not_stand_still_in_silence() -> None:
    with pytest.raises(UsageError, match=r"nothing reaches the part 'blocks.0'; .*take a rule that needs none"):
        Backprop(nets.mlp([4, 5], classes=3, act="sign")).step(torch.rand(6, 4), torch.arange(6) % 3)


def test_blocks_that_do_not_fit_together_or_to_the_problem_are_named() -> None:
    spikes = nets.Block(nets.linear(4, 5, "kaiming", torch.Generator()), None, nets.LeakyIntegrateAndFire(2))
    output = nets.Block(nets.linear(5, 3, "kaiming", torch.Generator()))
    with pytest.raises(UsageError, match=r"gives \(2, 3\) for a sample.*put nets.MeanOverTime\(\) before"):
        SignalPropagation(nn.Sequential(spikes, output))
    SignalPropagation(nn.Sequential(spikes, nets.MeanOverTime(), output))
    with pytest.raises(UsageError, match=r"a sample of shape \(64,\) does not go through its blocks \("):
        Backprop(nets.mlp([784, 5], classes=3), Problem((64,), 3))
