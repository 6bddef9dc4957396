"""DifferenceTargetPropagation against plain loops, autograd and backprop; what its feedback learns."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.losses import losses
from altprop.rules.targets.difference_target_propagation import DifferenceTargetPropagation
from altprop.rules.targets.parts import Parts, parts_of
from altprop.schedules import fall
from steps import Opaque, gradients

SGD = partial(torch.optim.SGD, lr=0.1)
STILL = {"blocks": SGD, "feedback": partial(torch.optim.SGD, lr=0.0)}
KINDS = pytest.mark.parametrize("kind", ["perceptron", "conv"])


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def build(
    kind: str, act: str, cls: type[DifferenceTargetPropagation] = DifferenceTargetPropagation, **options: object
) -> tuple[DifferenceTargetPropagation, Tensor, Tensor]:
    shape, size = ((6,), 5) if kind == "perceptron" else ((2, 8, 8), 3)
    net = (
        nets.mlp([6, 8, 7, 5], classes=4, act=act)
        if len(shape) == 1
        else nets.conv(shape, [3, 5], classes=4, act=act, pooled=(0, 1))
    )
    rule = cls(net.double(), Problem(shape, 4), **{"optimizer": STILL, **options})
    return rule, *batch(size, *shape)


def backprop(rule: DifferenceTargetPropagation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in rule.named_parameters() if name.startswith("net")}
    loss = losses(rule.net(x), y, rule.problem.kind).mean()
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of a block's update."""
    return max(float((found[k] - v).norm() / v.norm()) for k, v in expected.items())


class Transposed(DifferenceTargetPropagation):
    """The feedback is the transposed Jacobian of the block, taken by autograd."""

    def difference(self, i: int, part: Parts, h: Tensor, a: Tensor, gap: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = h.detach().requires_grad_()
            (back,) = torch.autograd.grad(self.net[i](leaf), leaf, gap)
        return back


@KINDS
@pytest.mark.parametrize("act", ["relu", "tanh"])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_with_the_transposed_jacobian_for_feedback_the_updates_are_backprops(kind: str, act: str, beta: float) -> None:
    rule, x, y = build(kind, act, Transposed, beta=beta)
    expected = backprop(rule, x, y)
    assert distance(gradients(rule, x, y), expected) < 1e-14


@KINDS
def test_its_own_feedback_with_the_blocks_weights_is_backprop_where_no_kink_is_crossed(kind: str) -> None:
    rule, x, y = build(kind, "leaky-relu", beta=1e-5)
    for i, block in enumerate(rule.net):
        if i > 0:
            rule.assign(rule.weight(i), block.affine.weight)
    expected = backprop(rule, x, y)
    assert distance(gradients(rule, x, y), expected) < 1e-9


def test_updates_equal_targets_sample_by_sample() -> None:
    rule, x, y = build("perceptron", "tanh", beta=0.7)
    with torch.no_grad():
        expected = {name: torch.zeros_like(p) for name, p in rule.named_parameters() if name.startswith("net")}
        for sample, label in zip(x, y, strict=True):
            h = [sample]
            for block in rule.net:
                h.append(block(h[-1][None])[0])
            t = h[-1] - 0.7 * (h[-1].softmax(0) - torch.eye(4)[label])
            for i in (3, 2, 1, 0):
                slope = 1.0 if i == 3 else 1 - h[i + 1] ** 2
                delta = (h[i + 1] - t) / 0.7 * slope
                expected[f"net.{i}.affine.weight"] += torch.outer(delta, h[i]) / len(x)
                expected[f"net.{i}.affine.bias"] += delta / len(x)
                if i > 0:
                    b = rule.weight(i).T
                    back = b @ t - b @ h[i + 1] if i == 3 else b @ t.tanh() - b @ h[i + 1].tanh()
                    t = h[i] + back
    found = gradients(rule, x, y)
    for name, value in expected.items():
        assert bool(value.any())
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


@KINDS
@pytest.mark.parametrize("feedback", ["difference", "reconstruction"])
def test_feedback_learns_the_gradient_of_its_loss_on_each_sample(kind: str, feedback: str) -> None:
    rule, x, y = build(kind, "tanh", feedback=feedback, noise=0.3)
    g = torch.Generator()
    g.set_state(rule.generator.get_state())
    h = [x]
    with torch.no_grad():
        for block in rule.net:
            h.append(block(h[-1]))
    expected, total = {}, []
    for i, block in list(enumerate(rule.net))[1:]:
        eps, eta = (0.3 * torch.randn(t.shape, generator=g).double() for t in (h[i], h[i + 1]))
        b = rule.weight(i).detach().clone().requires_grad_()
        loss = sum(
            _feedback_loss(block, b, s[None], d[None], n[None], feedback)
            for s, d, n in zip(h[i], eps, eta, strict=True)
        ) / len(x)
        expected[i] = torch.autograd.grad(loss, b)[0]
        total.append(loss.detach())
    found = gradients(rule, x, y)
    for i, value in expected.items():
        torch.testing.assert_close(found[f"feedback.{i}.0"], value, rtol=1e-10, atol=1e-12)
    rule, *_ = build(kind, "tanh", feedback=feedback, noise=0.3)
    torch.testing.assert_close(rule.step(x, y)["feedback"], torch.stack(total).mean())


def _feedback_loss(block: nets.Block, b: Tensor, h: Tensor, eps: Tensor, eta: Tensor, kind: str) -> Tensor:
    with torch.no_grad():
        a = block.affine(h) if block.activation is None else block.activation(block.affine(h))
        out, shaken = block(h), block(h + eps)

    def g(t: Tensor) -> Tensor:
        if block.pool is not None:
            leaf = a.detach().requires_grad_()
            (t,) = torch.autograd.grad(block.pool(leaf), leaf, t)
        t = t if block.activation is None else block.activation(t)
        if isinstance(block.affine, nn.Conv2d):
            return nn.functional.conv_transpose2d(t, b, padding=1)
        return t @ b

    if kind == "reconstruction":
        return 0.5 * (g(shaken) - h - eps).square().sum()
    pull = (eps * (g(shaken) - g(out))).sum()
    return (0.5 * (g(out + eta) - g(out)).square().sum() - pull) / 0.3**2


@KINDS
def test_the_jacobian_of_the_feedback_turns_to_the_transposed_one_of_the_block(kind: str) -> None:
    optimizer = {"blocks": partial(torch.optim.SGD, lr=0.0), "feedback": partial(torch.optim.Adam, lr=0.02)}
    rule, x, y = build(kind, "leaky-relu", optimizer=optimizer, noise=0.02, schedule=fall)

    def angles() -> list[float]:
        found, h = [], x
        for i, block in enumerate(rule.net):
            if i > 0:
                found.append(_angle(rule, i, block, h))
            h = block(h).detach()
        return found

    before = angles()
    for step in range(300):
        rule.progress = step / 300
        rule.step(x, y)
    after = angles()
    assert min(before) > 60 and max(after) < 25


def _angle(rule: DifferenceTargetPropagation, i: int, block: nn.Module, h: Tensor) -> float:
    """In degrees, between J_G and the transposed J_F, over all samples."""
    part = parts_of(block)
    forward = vmap(jacrev(lambda s: block(s[None])[0]))(h).flatten(2)
    with torch.no_grad():
        a = part.excite(part.drive(h))
        out, back = part.pooled(a), []
        for unit in range(out[0].numel()):
            gap = torch.zeros_like(out)
            gap.flatten(1)[:, unit] = 1e-6
            back.append(rule.difference(i, part, h, a, gap).flatten(1) / 1e-6)
        backward = torch.stack(back, 1)
    cosine = (forward.flatten() @ backward.flatten()) / (forward.norm() * backward.norm())
    return float(cosine.detach().arccos().rad2deg())


def test_reconstruction_is_no_such_feedback() -> None:
    optimizer = {"blocks": partial(torch.optim.SGD, lr=0.0), "feedback": partial(torch.optim.Adam, lr=0.02)}
    rule, x, y = build("perceptron", "leaky-relu", optimizer=optimizer, noise=0.05, feedback="reconstruction")
    for _ in range(150):
        rule.step(x, y)
    assert _angle(rule, 1, rule.net[1], rule.net[0](x).detach()) > 35  # L-DRL gets below 25


def test_feedback_learns_so_often_before_any_block() -> None:
    rule, x, y = build("perceptron", "tanh", iterations=3)
    order: list[str] = []
    for part, optimizer in rule.optimizers.items():
        optimizer.register_step_pre_hook(lambda *_, part=part: order.append(part))
    rule.step(x, y)
    again = [f"feedback.{i}" for i in (1, 2, 3)] * 3
    assert order == again + [f"blocks.{i}" for i in (3, 2, 1, 0)]


def test_blocks_without_layer_or_derivative_are_no_hindrance() -> None:
    first, second, output = nets.mlp([6, 20, 20], classes=4, act="tanh")
    rule = DifferenceTargetPropagation(nn.Sequential(nn.Flatten(), first, Opaque(), second, output), Problem((6,), 4))
    assert torch.equal(rule.weight(2), torch.eye(20)) and set(rule.feedback) == {"1", "2", "3", "4"}
    before = [p.detach().clone() for p in rule.parameters()]
    x, y = batch(12, 6)
    rule.step(x.float(), y)
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))


def test_layer_normalisation_and_regression() -> None:
    net = nets.mlp([6, 8, 7], classes=2, act="tanh", norm=True).double()
    rule = Transposed(net, Problem((6,), 2, "regression"), optimizer=STILL)
    x, _ = batch(5, 6)
    y = torch.linspace(-1, 1, 10, dtype=torch.float64).view(5, 2)
    expected = backprop(rule, x, y)
    assert distance(gradients(rule, x, y), expected) < 1e-14


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": 0.0}, "beta and noise must be positive"),
        ({"noise": -1.0}, "beta and noise must be positive"),
        ({"iterations": 0}, "iterations at least 1"),
        ({"feedback": "fixed"}, "choose 'difference' or 'reconstruction'"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DifferenceTargetPropagation(nets.mlp([6, 8], classes=4), **options)


def test_nets_that_it_cannot_train_are_refused() -> None:
    conv = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    assert "block 1 has no layer" in str(DifferenceTargetPropagation.refuses(conv, Problem((2, 8, 8), 4)))
    local = nets.local((2, 8, 8), [(3, 4, 2)], classes=4)
    assert "nn.Linear or nn.Conv2d" in str(DifferenceTargetPropagation.refuses(local, Problem((2, 8, 8), 4)))
