"""Signal propagation against its local losses written out by hand, and against what it promises."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.signal_propagation import SignalPropagation
from steps import gradients, peaks

SGD = partial(torch.optim.SGD, lr=0.1)
K = 30.0


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Labels hold every class, some more often than others."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(shape[0]).sqrt().long() % classes


def naive_gradients(rule: SignalPropagation, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One target a sample, each sent through by itself; block by block with the plain formula of the local loss."""
    net, signal = rule.net, rule.target[0]
    names = {p: n for n, p in rule.named_parameters()}
    share = 1.0 / (y == y.unsqueeze(1)).double().sum(1)  # a class that the batch holds n times counts 1/n each time
    found: dict[str, Tensor] = {}

    def collect(loss: Tensor, parameters: list[Tensor]) -> None:
        found.update((names[p], g) for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True))

    h, ts = x, [net[0].activation(signal[m]) for m in y]
    for i, block in enumerate(net[:-1]):
        h = block(h)
        if i > 0:
            ts = [block(t.detach().unsqueeze(0))[0] for t in ts]
        losses = []
        for row, label in zip(h, y, strict=True):
            likeness = torch.stack([K * (row * t).sum() / (row.norm() * t.norm()) for t in ts])
            own = likeness[(y == label).nonzero()[0, 0]]
            losses.append((share * likeness.exp()).sum().log() - own)
        parameters = list(block.parameters()) + ([signal] if i == 0 else [])
        collect(torch.stack(losses).mean(), parameters)
        h = h.detach()
    log_p = net[-1](h).log_softmax(1)
    collect(-log_p[range(len(y)), y].mean(), list(net[-1].parameters()))
    return found


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.mlp([6, 8, 7, 5], classes=4), (6,)),
        (nets.mlp([6, 8, 7], classes=4, act="tanh", norm=True), (6,)),
        (nets.conv((2, 8, 8), [3, 5], classes=4), (2, 8, 8)),
    ],
    ids=["relu", "tanh with layer norm", "conv with pooling"],
)
def test_one_target_pass_a_class_equals_one_a_sample(net: nn.Sequential, shape: tuple[int, ...]) -> None:
    rule = SignalPropagation(net.double(), Problem(shape, 4), optimizer=SGD, sharpness=K)
    x, y = batch(12, *shape)
    assert set(y.tolist()) == {0, 1, 2, 3}
    expected = naive_gradients(rule, x, y)
    found = gradients(rule, x, y)
    assert set(found) == set(expected) == {name for name, _ in rule.named_parameters()}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


def test_the_target_stream_has_one_row_a_class() -> None:
    net = batch_norm_net().double()
    rule = SignalPropagation(net, optimizer=SGD)
    rows: list[list[int]] = [[], [], []]
    for seen, block in zip(rows, net, strict=True):
        block.register_forward_hook(lambda _, args, __, seen=seen: seen.append(len(args[0])))
    rule.step(*batch(12, 6))
    assert rows == [[12], [12, 4], [12]]
    net = nets.mlp([6, 8, 7], classes=4).double()
    rule = SignalPropagation(net, optimizer=SGD)
    net[1].register_forward_hook(lambda _, args, __: rows.append([len(args[0])]))
    rule.step(*batch(12, 6))
    assert rows[3:] == [[12 + 4]]


@pytest.mark.parametrize("changed", [1, 2, 3])
def test_later_blocks_do_not_change_an_earlier_update(changed: int) -> None:
    def build() -> SignalPropagation:
        return SignalPropagation(nets.mlp([6, 8, 7, 5], classes=4).double())

    rule, other = build(), build()
    x, y = batch(12, 6)
    for _ in range(5):
        rule.step(x, y)
        other.step(x, y)
    with torch.no_grad():
        for p in other.net[changed:].parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=p.dtype))
    rule.step(x, y)
    other.step(x, y)
    for p, q in zip(rule.net[:changed].parameters(), other.net[:changed].parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(rule.target[0], other.target[0])
    assert not torch.equal(rule.net[changed].affine.weight, other.net[changed].affine.weight)


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: SignalPropagation(nets.mlp([20] * depth, classes=4).double()), x, y)
    assert len(set(found)) == 1, found


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = SignalPropagation(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    forward = b * n0 * n1 + (b + c) * n1 * n2 + b * n2 * c
    likeness = b * c * (n1 + n2)  # forward, and its derivatives by h and by t
    assert trace.operations == 2 * (2 * forward + 3 * likeness)


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        raise AssertionError("nobody may ask for this derivative")


class Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return NoDerivative.apply(x)


def test_a_block_without_weights_is_passed_through_by_both_streams() -> None:
    first, second, output = nets.mlp([6, 8, 7], classes=4).double()
    net = nn.Sequential(nn.Flatten(), first, Sign(), second, output)
    rule = SignalPropagation(net, Problem((6,), 4))
    assert rule.entry == 1 and rule.target[0].shape == (4, 8)
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(12, 6))
    assert all(not torch.equal(p, q) for p, q in zip(rule.parameters(), before, strict=True))
    torch.testing.assert_close(rule.targets(), second(rule.target[0].relu().sign()))


def test_frozen_blocks_stay() -> None:
    for frozen in (0, 1, 2):
        net = nets.mlp([6, 8, 7], classes=4).double()
        net[frozen].requires_grad_(False)
        rule = SignalPropagation(net)
        before = [block.affine.weight.clone() for block in net]
        rule.step(*batch(12, 6))
        same = [torch.equal(block.affine.weight, w) for block, w in zip(net, before, strict=True)]
        assert same == [i == frozen for i in range(3)]


def batch_norm_net(inputs: int = 6, width: int = 16, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [inputs, width, width]
    layers = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nets.blocks(nn.Sequential(*(m for group in layers for m in group), nn.Linear(width, classes)))


def test_targets_never_touch_the_inputs_running_statistics() -> None:
    net = batch_norm_net().double()
    rule = SignalPropagation(net, optimizer=partial(torch.optim.SGD, lr=0.0))
    x, y = batch(12, 6)
    rule.step(x, y)
    h = x
    for block in net[:2]:
        a = block.affine(h)
        torch.testing.assert_close(block.norm.running_mean, 0.1 * a.mean(0))
        torch.testing.assert_close(block.norm.running_var, 0.9 + 0.1 * a.var(0))
        assert int(block.norm.num_batches_tracked) == 1 and block.norm.track_running_stats
        h = ((a - a.mean(0)) / (a.var(0, correction=0) + 1e-5).sqrt()).relu()
    rule.eval()
    state = {k: v.clone() for k, v in rule.state_dict().items()}
    for predict in rule.predictors().values():
        predict(x)
    assert all(torch.equal(v, state[k]) for k, v in rule.state_dict().items())


def test_both_predictions_are_good_in_evaluation_mode_with_batch_normalisation() -> None:
    g = torch.Generator().manual_seed(0)
    centres = 4.0 * torch.randn(4, 6, generator=g)
    y = torch.randint(4, (600,), generator=g)
    x = centres[y] + torch.randn(600, 6, generator=g) + 5.0  # far from what untrained statistics say
    rule = SignalPropagation(batch_norm_net(), optimizer=partial(torch.optim.Adam, lr=5e-3))
    for _ in range(10):
        for rows in torch.arange(600).split(50):
            rule.step(x[rows], y[rows])
    rule.eval()
    with torch.no_grad():
        accuracy = {name: float((f(x).argmax(1) == y).double().mean()) for name, f in rule.predictors().items()}
        one_by_one = torch.cat([rule.nearest(row) for row in x[:50].split(1)])
    assert min(accuracy.values()) > 0.97, accuracy
    torch.testing.assert_close(one_by_one, rule.nearest(x[:50]).detach())


def test_nearest_sends_the_targets_through_the_net_as_it_is_now() -> None:
    net = nets.mlp([6, 8, 7], classes=4).double()
    rule = SignalPropagation(net)
    x, y = batch(12, 6)
    rule.step(x, y)
    h, t = net[1](net[0](x)), net[1](rule.target[0].relu())
    expected = nn.functional.cosine_similarity(h.unsqueeze(1), t.unsqueeze(0), dim=2)
    torch.testing.assert_close(rule.nearest(x), expected)
    assert rule.predictors().keys() == {"output", "nearest"}
    assert torch.equal(rule.predictors()["output"](x), net(x))


def test_rows_without_activity_leave_everything_finite() -> None:
    rule = SignalPropagation(nets.mlp([6, 8, 7], classes=4).double())
    with torch.no_grad():
        rule.net[0].affine.bias.fill_(-100.0)
    rule.step(*batch(12, 6))
    assert all(bool(p.isfinite().all()) for p in rule.parameters())


def test_reasons_why_not() -> None:
    net = nets.mlp([6, 8], classes=4)
    assert SignalPropagation.supports(net, Problem((6,), 4)) is None
    assert "regression" in str(SignalPropagation.supports(net, Problem((6,), 4, "regression")))
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        SignalPropagation(nets.mlp([6, 8]), Problem((6,), 4))
    with pytest.raises(UsageError, match="before the output block"):
        SignalPropagation(nets.mlp([6], classes=4))
