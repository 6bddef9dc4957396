"""Direct feedback that learns, and direct feedback of signs: what their oracles do not compare."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.angles import angles
from altprop.analysis.audit import audit
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem, Rule
from altprop.rules.feedback.direct_kolen_pollack import DirectKolenPollack
from altprop.rules.feedback.sign_direct_feedback_alignment import SignDirectFeedbackAlignment
from steps import Opaque, gradients

SGD = partial(torch.optim.SGD, lr=0.1)
BOTH = pytest.mark.parametrize("kind", [DirectKolenPollack, SignDirectFeedbackAlignment])


def mlp(classes: int = 4) -> nn.Sequential:
    return nets.mlp((6, 8, 7), classes=classes, act="tanh").double()


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def test_convolutional_feedback_takes_the_step_of_an_output_layer_on_its_block() -> None:
    net = nets.conv((2, 8, 8), [3, 5], classes=4).double()
    rule = DirectKolenPollack(net, Problem((2, 8, 8), 4), optimizer=SGD)
    x, y = batch(3, 2, 8, 8)
    with torch.no_grad():
        h = net[0](x)
        e = (net(x).softmax(1) - torch.eye(4, dtype=torch.float64)[y]) / 3
    found = gradients(rule, x, y)
    torch.testing.assert_close(found["feedback.0"], torch.einsum("nk,nchw->kchw", e, h))
    torch.testing.assert_close(found["feedback.1"], found["net.2.affine.weight"])


def test_decay_follows_the_schedule_and_spares_frozen_outputs() -> None:
    net = mlp()
    net[2].requires_grad_(False)
    rule = DirectKolenPollack(net, decay=0.1, schedule=lambda progress: 1.0 - progress, optimizer=partial(SGD, lr=0.0))
    rule.progress = 0.5
    before, output = rule.feedback["1"].detach().clone(), net[2].affine.weight.clone()
    rule.step(*batch(5, 6))
    torch.testing.assert_close(rule.feedback["1"].detach(), 0.95 * before)
    assert torch.equal(net[2].affine.weight, output)


def test_signs_of_classes_are_known_beforehand_and_those_of_a_regression_are_not() -> None:
    rule = SignDirectFeedbackAlignment(mlp(), optimizer=SGD)
    x, y = batch(5, 6)
    found = gradients(rule, x, y)
    with torch.no_grad():
        h = torch.tanh(mlp()[0].affine(x))
        signs = (1 - 2 * torch.eye(4, dtype=torch.float64)[y]) / 5
        delta = (signs @ rule.get_buffer("feedback_0")) * (1 - h**2)
    torch.testing.assert_close(found["net.0.affine.weight"], delta.t() @ x)
    assert rule.claims.later_blocks == "none"
    regression = SignDirectFeedbackAlignment(mlp(), Problem((6,), 4, "regression"), optimizer=SGD)
    assert regression.claims.later_blocks == "prediction"
    with torch.no_grad():
        targets = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        delta = ((regression.net(x) - targets).sign() / 5 @ rule.get_buffer("feedback_0")) * (1 - h**2)
    torch.testing.assert_close(gradients(regression, x, targets)["net.0.affine.weight"], delta.t() @ x)


@BOTH
def test_angles_are_taken_to_the_product_of_all_later_weights(kind: type[Rule]) -> None:
    rule = kind(mlp())
    with torch.no_grad():
        b = dict(rule.named_parameters()) | dict(rule.named_buffers())
        first = next(value for name, value in b.items() if name in ("feedback_0", "feedback.0"))
        first.copy_(2 * rule.net[2].affine.weight @ rule.net[1].affine.weight)
    found = angles(rule)
    assert list(found) == ["blocks.0", "blocks.1"]
    assert found["blocks.0"] < 1e-4 and found["blocks.1"] > 45
    conv = kind(nets.conv((2, 8, 8), [3, 5], classes=4), Problem((2, 8, 8), 4))
    assert list(angles(conv)) == ["blocks.1"]


@BOTH
def test_a_block_without_derivative_does_not_stop_the_blocks_before_it(kind: type[Rule]) -> None:
    first, second, output = mlp()
    rule = kind(nn.Sequential(first, Opaque(), second, output), optimizer=SGD)
    before = first.affine.weight.detach().clone()
    rule.step(*batch(5, 6))
    assert not torch.equal(first.affine.weight, before)


def test_operations_equal_a_hand_count() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = DirectKolenPollack(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    layers = n0 * n1 + n1 * n2 + n2 * c
    assert trace.operations == 2 * b * (2 * layers + 2 * c * (n1 + n2))


def test_the_claims_hold_for_a_frozen_feedback_part_too() -> None:
    assert all(f.holds for f in audit(lambda net, problem, g: DirectKolenPollack(net, problem, decay=0.0, generator=g)))


@BOTH
def test_bad_requests(kind: type[Rule]) -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        kind(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        DirectKolenPollack(mlp(), decay=1.5)
