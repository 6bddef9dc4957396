"""Channel-wise competition against its equations with PyTorch's batch normalisation, and against what it promises."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.rule import Problem
from altprop.rules.forward_only.channel_wise_competition import ChannelWiseCompetition
from class_group_nets import CLASSES, NETS, batch, images
from steps import gradients, peaks

CHANNELS = {"mlp": (12, 12, 8), "conv": (8, 8, 8, 12), "local": (8, 8, 12)}
SGD = partial(torch.optim.SGD, lr=0.0)
K = 3.0


def naive(net: nn.Sequential, norms: list[nn.BatchNorm1d], x: Tensor) -> list[Tensor]:
    """Each block's goodness class by class, with PyTorch's own layer for the normalisation."""
    z, goodness = x, []
    for block, norm in zip(net, norms, strict=True):
        h = block(z)
        normal = norm(images(h, norm.num_features))
        own = norm.num_features // CLASSES
        classes = [normal[:, c * own : (c + 1) * own].square().mean((1, 2)) for c in range(CLASSES)]
        goodness.append(torch.stack(classes, 1))
        z = normal.detach().view_as(h)
    return goodness


@pytest.mark.parametrize("kind", NETS)
def test_gradients_and_predictions_equal_the_equations(kind: str) -> None:
    build, shape = NETS[kind]
    net = build().double()
    rule = ChannelWiseCompetition(net, Problem(shape, CLASSES), optimizer=SGD, sharpness=K)
    norms = [nn.BatchNorm1d(n, affine=False).double() for n in CHANNELS[kind]]
    x, y = batch(7, *shape)
    found = gradients(rule, x, y)
    assert len(found) == 2 * len(net)
    for i, g in enumerate(naive(net, norms, x)):
        loss = -(K * g).log_softmax(1)[range(len(y)), y].mean()
        weight, bias = torch.autograd.grad(loss, list(net[i].parameters()))
        torch.testing.assert_close(found[f"net.{i}.affine.weight"], weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[f"net.{i}.affine.bias"], bias, rtol=1e-9, atol=1e-12)
    for norm in norms:
        norm.eval()  # from here on by the running averages, which must have become the same
    expected = naive(net, norms, x)
    torch.testing.assert_close(rule(x), sum(expected))
    torch.testing.assert_close(rule.last(x), expected[-1])


def test_predictions_do_not_depend_on_the_batch_or_the_mode() -> None:
    build, shape = NETS["conv"]
    rule = ChannelWiseCompetition(build().double(), Problem(shape, CLASSES))
    x, y = batch(9, *shape)
    rule.step(x, y)
    before = {k: v.clone() for k, v in rule.state_dict().items()}
    whole = rule(x)
    torch.testing.assert_close(rule.eval()(x), whole)
    torch.testing.assert_close(torch.cat([rule(row) for row in x.split(1)]), whole)
    assert all(torch.equal(v, before[k]) for k, v in rule.state_dict().items())


def test_the_classes_share_a_fixed_energy() -> None:
    build, shape = NETS["conv"]
    rule = ChannelWiseCompetition(build().double(), Problem(shape, CLASSES))
    x, _ = batch(9, *shape)
    for _, g in rule._goodness(x, learning=True):
        torch.testing.assert_close(g.mean(0), torch.ones_like(g[0]), rtol=1e-2, atol=0.0)


def test_one_sample_alone_teaches_a_perceptron_by_the_running_averages() -> None:
    build, shape = NETS["mlp"]
    rule = ChannelWiseCompetition(build().double(), Problem(shape, CLASSES))
    x, y = batch(9, *shape)
    rule.step(x, y)
    averages = {k: v.clone() for k, v in rule.named_buffers()}
    weights = [p.detach().clone() for p in rule.parameters()]
    rule.step(x[:1], y[:1])
    assert all(torch.equal(v, averages[k]) for k, v in rule.named_buffers())
    assert all(not torch.equal(p, w) for p, w in zip(rule.parameters(), weights, strict=True))
    assert all(bool(p.isfinite().all()) for p in rule.parameters())


def test_operations_equal_a_hand_count_and_no_product_is_wasted() -> None:
    b, widths = 16, [12, 20, 20, 8]
    rule = ChannelWiseCompetition(nets.mlp(widths), Problem((12,), CLASSES))
    x, y = batch(b, 12)
    rule.step(x.float(), y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x.float(), y)
    assert trace.operations == 2 * 2 * b * (12 * 20 + 20 * 20 + 20 * 8)  # forward, and the weight's gradient


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(
        lambda depth: ChannelWiseCompetition(nets.mlp([20] * (depth + 1)), Problem((20,), CLASSES)), x.float(), y
    )
    assert len(set(found)) == 1, found


def test_grouped_convolutions_learn_too() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1, groups=CLASSES), nn.ReLU()
    )
    rule = ChannelWiseCompetition(nets.blocks(model).double(), Problem((1, 6, 6), CLASSES))
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(*batch(5, 1, 6, 6))
    assert all(not torch.equal(p, w) for p, w in zip(rule.parameters(), before, strict=True))


def test_blocks_without_parameters_are_passed_through_and_frozen_ones_stay() -> None:
    first, second, third = nets.mlp([6, 8, 8, 8]).double()
    second.requires_grad_(False)
    net = nn.Sequential(nn.Identity(), first, nn.Tanh(), second, third)
    rule = ChannelWiseCompetition(net, Problem((6,), CLASSES))
    before = [block.affine.weight.clone() for block in (first, second, third)]
    rule.step(*batch(12, 6))
    moved = [not torch.equal(block.affine.weight, w) for block, w in zip((first, second, third), before, strict=True)]
    assert moved == [True, False, True]
