"""Direct random target projection against loops written out by hand, and against what it promises."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import prod

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.trace import Trace
from altprop.bench.contender import adam
from altprop.bench.contenders import contender
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.feedback.direct_random_target_projection import DirectRandomTargetProjection
from every import SETTING, accuracy, batches, teach
from steps import Opaque, gradients, learnt_when_entered, peaks

SGD = partial(torch.optim.SGD, lr=0.1)


def mlp(act: str = "tanh", widths: tuple[int, ...] = (6, 8, 7), classes: int = 4) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, act=act, init="lecun").double()


def batch(*shape: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=torch.float64), torch.randint(classes, shape[:1], generator=g)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def one_sample(net: nn.Sequential, signals: list[Tensor], x: Tensor, y: int) -> list[tuple[Tensor, Tensor]]:
    """The weight and bias gradients of tanh blocks and the softmax for one sample, number by number."""
    found, h = [], x.tolist()
    for i, block in enumerate(net):
        w, b = block.affine.weight.tolist(), block.affine.bias.tolist()
        a = [sum(w_jk * h_k for w_jk, h_k in zip(row, h, strict=True)) + b_j for row, b_j in zip(w, b, strict=True)]
        if i < len(net) - 1:
            out = [float(torch.tensor(v, dtype=torch.float64).tanh()) for v in a]
            delta = [-float(signals[i][y, j]) * (1 - out[j] ** 2) for j in range(len(a))]
        else:
            out = [float(torch.tensor(v, dtype=torch.float64).exp()) for v in a]
            delta = [v / sum(out) - (1.0 if j == y else 0.0) for j, v in enumerate(out)]
        weight = torch.tensor([[d * h_k for h_k in h] for d in delta], dtype=torch.float64)
        found.append((weight, torch.tensor(delta, dtype=torch.float64)))
        h = out
    return found


def test_updates_are_the_mean_of_the_formula_sample_by_sample() -> None:
    net = mlp(widths=(6, 8, 7, 5))
    rule = DirectRandomTargetProjection(net, optimizer=SGD)
    x, y = batch(5, 6)
    signals = [rule.get_buffer(f"feedback_{i}") for i in range(3)]
    each = [one_sample(net, signals, x[n], int(y[n])) for n in range(5)]
    found = gradients(rule, x, y)
    assert len(found) == 8
    for i in range(4):
        close(found[f"net.{i}.affine.weight"], torch.stack([sample[i][0] for sample in each]).mean(0))
        close(found[f"net.{i}.affine.bias"], torch.stack([sample[i][1] for sample in each]).mean(0))


def test_convolution_with_pooling_follows_the_formula_patch_by_patch() -> None:
    net = nets.conv((2, 8, 8), [3, 5], classes=4, act="tanh").double()
    rule = DirectRandomTargetProjection(net, Problem((2, 8, 8), 4), optimizer=SGD)
    x, y = batch(3, 2, 8, 8)
    layer = net[0].affine
    a = nn.functional.conv2d(x, layer.weight.detach(), layer.bias.detach(), padding=1)
    pooled, where = nn.functional.max_pool2d(a.tanh(), 2, return_indices=True)
    one_hot = torch.eye(4, dtype=torch.float64)[y]
    feedback = rule.get_buffer("feedback_0")
    assert feedback.shape == (4, *pooled.shape[1:])
    delta = -torch.einsum("bk,kchw->bchw", one_hot / len(x), feedback)
    delta = nn.functional.max_unpool2d(delta, where, 2) * (1 - a.tanh() ** 2)
    patches = nn.functional.unfold(x, 3, padding=1)  # (batch, inputs of a patch, places)
    expected = torch.einsum("bcp,bip->ci", delta.flatten(2), patches).view_as(layer.weight)
    found = gradients(rule, x, y)
    close(found["net.0.affine.weight"], expected)
    close(found["net.0.affine.bias"], delta.sum((0, 2, 3)))
    assert len(found) == 6  # the flattened second block and the output block learn too


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_the_two_signs_minus_descends_where_the_feedback_is_the_output_weights(sign: float) -> None:
    net = mlp(widths=(6, 8))
    net[1].requires_grad_(False)
    rule = DirectRandomTargetProjection(net, optimizer=partial(torch.optim.SGD, lr=1e-3))
    rule.get_buffer("feedback_0").copy_(sign * net[1].affine.weight.detach())
    x, y = batch(50, 6)
    losses = [float(rule.step(x, y)["loss"]) for _ in range(20)]
    falls = [after < before for before, after in pairwise(losses)]
    assert all(falls) if sign > 0 else not any(falls)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_output_weights_turn_to_the_feedback_whatever_its_sign(sign: float) -> None:
    rule = contender("direct-random-target-projection", SETTING).build(SETTING, 0)
    feedback = rule.get_buffer("feedback_1").mul_(sign)
    output = rule.net[2].affine.weight

    def alignment() -> float:
        centred = (m - m.mean(0) for m in (output.detach(), feedback))  # what all classes share moves no softmax
        return float(nn.functional.cosine_similarity(*(m.flatten() for m in centred), dim=0))

    assert abs(alignment()) < 0.15
    teach(rule, batches(32, 200))
    assert alignment() > 0.25


def test_beats_a_readout_on_the_same_net_with_its_hidden_blocks_frozen() -> None:
    learns = replace(contender("direct-random-target-projection", SETTING), widths=(24, 24))
    stays = replace(learns, frozen=True, optimizer={"all": adam(3e-2)})  # a rate that suits a readout
    data = batches(32, 15 * 38)
    scores = []
    for chosen in (learns, stays):
        scores.append([accuracy(teach(chosen.build(SETTING, seed), data))[""] for seed in range(3)])
    assert min(scores[0]) > max(scores[1]), scores


def test_a_block_has_learnt_before_the_next_one_is_entered() -> None:
    learnt = learnt_when_entered(DirectRandomTargetProjection(mlp(), optimizer=SGD), *batch(5, 6))
    assert learnt == [[False] * 3, [True, False, False], [True, True, False]]


def test_peak_memory_does_not_grow_with_depth() -> None:
    x, y = batch(32, 20)
    found = peaks(lambda depth: DirectRandomTargetProjection(mlp(widths=(20,) * depth)), x, y)
    assert len(set(found)) == 1, found


def test_hidden_updates_do_not_depend_on_the_output() -> None:
    x, y = batch(5, 6)
    found = []
    for factor in (1.0, -3.0):
        net = mlp()
        net[2].affine.weight.data.mul_(factor)
        found.append(gradients(DirectRandomTargetProjection(net, optimizer=SGD), x, y))
    for name in (f"net.{i}.affine.{kind}" for i in range(2) for kind in ("weight", "bias")):
        assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0]["net.2.affine.weight"], found[1]["net.2.affine.weight"])


def test_a_block_without_derivative_does_not_stop_the_blocks_before_it() -> None:
    first, second, output = mlp()
    rule = DirectRandomTargetProjection(nn.Sequential(first, Opaque(), second, output), optimizer=SGD)
    before = first.affine.weight.detach().clone()
    rule.step(*batch(5, 6))
    assert not torch.equal(first.affine.weight, before)
    assert not hasattr(rule, "feedback_1")


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_blocks_stay_and_need_no_feedback(frozen: int) -> None:
    net = mlp()
    net[frozen].requires_grad_(False)
    rule = DirectRandomTargetProjection(net, optimizer=SGD)
    before = [block.affine.weight.detach().clone() for block in net]
    rule.step(*batch(5, 6))
    same = [torch.equal(block.affine.weight, old) for block, old in zip(net, before, strict=True)]
    assert same == [i == frozen for i in range(3)]
    assert [hasattr(rule, f"feedback_{i}") for i in range(3)] == [i != frozen for i in range(2)] + [False]


def test_feedback_is_a_buffer_of_the_documented_size_from_the_generator() -> None:
    def build(seed: int) -> DirectRandomTargetProjection:
        return DirectRandomTargetProjection(
            nets.mlp([6, 400], classes=50), scale=3.0, generator=torch.Generator().manual_seed(seed)
        )

    rule = build(0)
    b = rule.get_buffer("feedback_0")
    assert "feedback_0" in rule.state_dict() and "feedback_0" not in dict(rule.named_parameters())
    assert abs(float(b.std()) * prod(b.shape[1:]) ** 0.5 - 3.0) < 0.05
    assert torch.equal(b, build(0).get_buffer("feedback_0"))
    assert not torch.equal(b, build(1).get_buffer("feedback_0"))
    before = b.clone()
    rule.step(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert torch.equal(b, before)


def test_operations_are_the_forward_pass_and_one_weight_gradient_a_block() -> None:
    b, n0, n1, n2, c = 16, 12, 10, 9, 4
    rule = DirectRandomTargetProjection(nets.mlp([n0, n1, n2], classes=c))
    x, y = torch.rand(b, n0, generator=torch.Generator().manual_seed(0)), torch.arange(b) % c
    rule.step(x, y)
    with Trace(dict(rule.named_parameters())) as trace:
        rule.step(x, y)
    assert trace.operations == 2 * b * 2 * (n0 * n1 + n1 * n2 + n2 * c)


def test_reasons_why_not() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        DirectRandomTargetProjection(nets.mlp([6, 4]), Problem((6,), 4))
    with pytest.raises(UsageError, match="targets of a regression do not"):
        DirectRandomTargetProjection(nets.mlp([6, 8], classes=2), Problem((6,), 2, "regression"))
    with pytest.raises(UsageError, match="leaves sizes open"):
        DirectRandomTargetProjection(nets.conv((2, 8, 8), [3], classes=4))
