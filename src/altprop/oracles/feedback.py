"""Feedback alignment and its kin against backpropagation, formulas written out by hand, and closed forms."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from altprop import nets
from altprop.analysis.alignment import by_backprop, updates
from altprop.analysis.angles import angles
from altprop.analysis.trials import batch
from altprop.oracles.check import Check, apart
from altprop.oracles.energy import nets_and_inputs
from altprop.rule import Problem, Rule
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from altprop.rules.feedback.direct_kolen_pollack import DirectKolenPollack
from altprop.rules.feedback.direct_random_target_projection import DirectRandomTargetProjection
from altprop.rules.feedback.feedback_alignment import FeedbackAlignment
from altprop.rules.feedback.kolen_pollack import KolenPollack
from altprop.rules.feedback.sign_direct_feedback_alignment import SignDirectFeedbackAlignment
from altprop.rules.feedback.sign_symmetry import SignSymmetry
from altprop.rules.feedback.signs import MAGNITUDES
from altprop.rules.feedback.weight_mirror import WeightMirror
from altprop.rules.reference.backprop import Backprop

SGD = partial(torch.optim.SGD, lr=0.05)
STEPS, DECAY = 100, 0.01
STEPPERS = {
    "gradient descent": SGD,
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "AdamW": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0),
}


def perceptron(act: str = "tanh", widths: tuple[int, ...] = (6, 9, 8, 7), classes: int = 3) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, act=act, generator=torch.Generator().manual_seed(0)).double()


def inputs(*shape: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=draw, dtype=torch.float64), torch.randint(classes, shape[:1], generator=draw)


def linear(rule: Rule, block: int) -> nn.Linear:
    layer = nets.affine(rule.net[block])
    assert isinstance(layer, nn.Linear)
    return layer


# Chains: the error comes down block after block.


def own_weights(kind: type[Chain]) -> Iterator[Check]:
    for name, net, x, y in nets_and_inputs():
        rule = kind(net, Problem(tuple(x.shape[1:]), 3))
        random, _ = updates(rule, x, y)
        with torch.no_grad():
            for i in rule.above:
                rule.back(i).copy_(rule.layer(i).weight)
        found, _ = updates(rule, x, y)
        expected = by_backprop(rule, x, y)
        error = max(apart(found[part], expected[part]) for part in expected)
        yield Check(f"gradients of {name} with B = W, and backpropagation's", error, 1e-14)
        last = f"blocks.{len(net) - 1}"
        yield Check(f"output block of {name} with its first B", apart(random[last], expected[last]), 1e-14)
        other = apart(random["blocks.0"], expected["blocks.0"])
        yield Check(f"first block of {name} with its first B", other, 0.1, "at least", control=True)


def feedback_alignment_with_own_weights() -> Iterator[Check]:
    """With B = W its gradients are backpropagation's, and the output block's always are."""
    yield from own_weights(FeedbackAlignment)


def kolen_pollack_with_own_weights() -> Iterator[Check]:
    """With B = W its gradients are backpropagation's, and the output block's always are."""
    yield from own_weights(KolenPollack)


def weight_mirror_with_own_weights() -> Iterator[Check]:
    """With B = W its gradients are backpropagation's, and the output block's always are."""
    yield from own_weights(WeightMirror)


@torch.no_grad()
def by_hand(rule: Rule, x: Tensor, y: Tensor, signal: Callable[[int, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Gradients of a tanh perceptron, sample after sample; signal(i, e, delta of block i + 1) stands for dL/dh_i."""
    layers = [linear(rule, i) for i in range(len(rule.net))]
    sizes = [layer.weight.numel() + layer.out_features for layer in layers]
    found = {f"blocks.{i}": x.new_zeros(size) for i, size in enumerate(sizes)}
    for sample, label in zip(x, y, strict=True):
        hs = [sample]
        for i, layer in enumerate(layers):
            a = layer.weight @ hs[-1] + layer.bias
            hs.append(a if i == len(layers) - 1 else a.tanh())
        e = hs[-1].exp() / hs[-1].exp().sum()
        e[label] -= 1.0
        delta = e
        for i in reversed(range(len(layers))):
            if i < len(layers) - 1:
                delta = signal(i, e, delta) * (1.0 - hs[i + 1] ** 2)
            found[f"blocks.{i}"] += torch.cat([torch.outer(delta, hs[i]).flatten(), delta]) / len(x)
    return found


def expected_by_hand(rule: Rule, signal: Callable[[int, Tensor, Tensor], Tensor]) -> Iterator[Check]:
    x, y = inputs(5, 6)
    expected = by_hand(rule, x, y, signal)
    found, _ = updates(rule, x, y)
    for part, gradient in expected.items():
        yield Check(f"gradient of {part}, and sample by sample", apart(found[part], gradient), 1e-12)


def feedback_alignment_by_hand() -> Iterator[Check]:
    """The paper's formula, sample by sample."""
    rule = FeedbackAlignment(perceptron())
    yield from expected_by_hand(rule, lambda i, e, delta: rule.get_buffer(f"feedback_{i + 1}").t() @ delta)


def sign_symmetry_by_hand() -> Iterator[Check]:
    """The formula of uSF, sample by sample, and in a convolution by the transposed one."""
    rule = SignSymmetry(perceptron())

    def signal(i: int, e: Tensor, delta: Tensor) -> Tensor:
        weight = linear(rule, i + 1).weight
        size = math.sqrt(2.0 / sum(weight.shape))
        return torch.full_like(weight, size).where(weight > 0, -size).t() @ delta

    yield from expected_by_hand(rule, signal)


def sign_symmetry_in_convolutions() -> Iterator[Check]:
    """uSF in two convolutions: the error comes down by a transposed convolution with signs, and exactly else."""
    *_, (name, net, x, y) = nets_and_inputs()
    rule = SignSymmetry(net, Problem((1, 8, 8), 3))
    found, _ = updates(rule, x, y)
    first, second, last = (rule.layer(i) for i in range(3))
    a = first(x)
    h = F.max_pool2d(a.relu(), 2)
    c = F.conv2d(h, second.weight, second.bias, padding=1)
    features = F.max_pool2d(c.relu(), 2) if c.size(2) >= 8 else c.relu()
    e = (last(features.flatten(1)).softmax(1) - torch.eye(3, dtype=x.dtype)[y]) / len(x)
    down = e @ last.weight.sign() * math.sqrt(2.0 / sum(last.weight.shape))
    (delta,) = torch.autograd.grad(features, c, down.view_as(features), retain_graph=True)
    size = math.sqrt(2.0 / (9 * sum(second.weight.shape[:2])))
    down = F.conv_transpose2d(delta, size * second.weight.sign(), padding=1)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(h, list(first.parameters()), down)])
    yield Check(f"first block of {name}", apart(found["blocks.0"], expected), 1e-12)


def signs_and_sizes() -> Iterator[Check]:
    """Signs are those of the weights in each step; sizes stay (frSF) or change (brSF), and are Glorot's."""
    for kind in MAGNITUDES:
        rule = SignSymmetry(perceptron(widths=(6, 80, 90, 70)), magnitudes=kind, optimizer=SGD)
        wrong, sizes = 0, []
        for step in range(5):
            rule.step(*inputs(8 + step, 6))
            b = [rule.back(i) for i in rule.above]
            wrong += sum(int((b_l * rule.layer(i).weight <= 0).sum()) for i, b_l in zip(rule.above, b, strict=True))
            sizes.append(b[0].abs())
        change = float((sizes[-1] - sizes[0]).abs().max())
        yield Check(f"{kind}: signs that differ", float(wrong), 0.0)
        if kind == "batch":
            yield Check(f"{kind}: change of the sizes in five steps", change, 0.01, "at least")
        else:
            yield Check(f"{kind}: change of the sizes in five steps", change, 0.0)
        w = torch.nn.init.xavier_normal_(torch.empty(90, 80), generator=torch.Generator().manual_seed(0))
        ratio = float(sizes[0].norm() / w.norm())
        yield Check(f"{kind}: |B| over |W| of Glorot's initialisation, from 1", abs(ratio - 1.0), 0.05)


def kolen_pollack_shrinks() -> Iterator[Check]:
    """W - B is (1 - decay)^t of what it was, whatever the optimizer."""
    for name, stepper in STEPPERS.items():
        rule = KolenPollack(perceptron("relu"), decay=DECAY, optimizer=stepper)
        yield from shrinks(rule, partial(difference, rule), name)
    plain = KolenPollack(perceptron("relu"), decay=0.0, optimizer=SGD)
    before = difference(plain)
    plain.step(*inputs(8, 6))
    yield Check("without decay it stays as it was", apart(difference(plain), before), 1e-14)
    inside = KolenPollack(perceptron("relu"), decay=0.0, optimizer=partial(torch.optim.Adam, weight_decay=0.1))
    for _ in range(STEPS):
        inside.step(*inputs(8, 6))
    turned = apart(difference(inside) / difference(inside).norm(), before / before.norm())
    yield Check("with decay inside Adam's gradient it turns", turned, 0.05, "at least", control=True)


def difference(rule: Chain) -> Tensor:
    """W - B of the third block."""
    return (rule.layer(2).weight - rule.back(2)).detach()


def direct_kolen_pollack_shrinks() -> Iterator[Check]:
    """Of the last hidden block, B - W is (1 - decay)^t of what it was, whatever the optimizer."""
    for name, stepper in STEPPERS.items():
        rule = DirectKolenPollack(perceptron("relu"), decay=DECAY, optimizer=stepper)
        yield from shrinks(rule, partial(direct_difference, rule), name)


def direct_difference(rule: DirectKolenPollack) -> Tensor:
    return linear(rule, 3).weight.detach() - rule.feedback.get_parameter("2").detach()


def shrinks(rule: Rule, difference: Callable[[], Tensor], name: str) -> Iterator[Check]:
    first, last = difference(), linear(rule, len(rule.net) - 1)
    weight = last.weight.detach().clone()
    x, y = inputs(64, 6)
    for step in range(STEPS):
        rule.step(x[step % 8 :: 8], y[step % 8 :: 8])
    found, moved = difference() / (1.0 - DECAY) ** STEPS, apart(last.weight.detach(), weight)
    yield Check(f"{name}: (W - B) / (1 - decay)^{STEPS}, and what W - B was", apart(found, first), 1e-10)
    yield Check(f"{name}: W is another by now", moved, 0.1, "at least")


def mirrors_show_the_weights() -> Iterator[Check]:
    """Fed with noise, B comes to point where W does, and to be as long."""
    net = nets.conv((2, 8, 8), [4, 6], classes=3, generator=torch.Generator().manual_seed(0)).double()
    for name, rule in (
        ("linear", WeightMirror(perceptron(), samples=64, rate=0.005)),
        ("convolution", WeightMirror(net, Problem((2, 8, 8), 3), samples=64, rate=0.005)),
    ):
        for _ in range(3000):
            rule.mirror(1)
        b, w = rule.back(1).flatten().detach(), rule.layer(1).weight.flatten().detach()
        yield Check(
            f"{name}: cosine after 3000 times 64 noises", float(b @ w / (b.norm() * w.norm())), 0.99, "at least"
        )
        yield Check(f"{name}: |B| / |W|, from 1", abs(float(b.norm() / w.norm()) - 1.0), 0.02)


def feedback_alignment_aligns() -> Iterator[Check]:
    """Taught by a linear map, the output weights turn towards B; where nothing learns they stand at a right angle."""
    draw = torch.Generator().manual_seed(2)
    teacher = torch.randn(30, 10, generator=draw) / 30**0.5
    net = nets.mlp([30, 20], classes=10, act="tanh")
    rule = FeedbackAlignment(net, Problem((30,), 10, "regression"), optimizer=SGD)
    start = angles(rule)["blocks.1"]
    for _ in range(1000):
        x = torch.randn(32, 30, generator=draw)
        rule.step(x, x @ teacher)
    yield Check("degrees before, from 90", abs(start - 90.0), 15.0)
    yield Check("degrees less after 1000 steps", start - angles(rule)["blocks.1"], 30.0, "at least")
    frozen = nets.mlp([24, 400, 400], classes=4, act="tanh")
    frozen[1].requires_grad_(False)
    still = FeedbackAlignment(frozen, optimizer=SGD)
    for step in range(50):
        still.step(*batch(32, step))
    yield Check("a frozen block's degrees, from 90", abs(angles(still)["blocks.1"] - 90.0), 1.0)


# Direct: the error, its signs or the label go to each block at once.


def direct_by_hand() -> Iterator[Check]:
    """The paper's formula, sample by sample."""
    rule = DirectFeedbackAlignment(perceptron())
    yield from expected_by_hand(rule, lambda i, e, _: rule.get_buffer(f"feedback_{i}").t() @ e)


def direct_feedback_alignment_aligns() -> Iterator[Check]:
    """Taught by a linear map, later weights turn until their product is near B; where they rest, the angle stays."""
    draw = torch.Generator().manual_seed(2)
    teacher = torch.randn(30, 10, generator=draw) / 30**0.5
    for rests in (False, True):
        net = nets.mlp([30, 40, 40], classes=10, act="tanh")
        net[1:].requires_grad_(not rests)
        rule = DirectFeedbackAlignment(net, Problem((30,), 10, "regression"), optimizer=SGD)
        start = angles(rule)
        for _ in range(1500):
            x = torch.randn(32, 30, generator=draw)
            rule.step(x, x @ teacher)
        for block, end in angles(rule).items():
            if rests:
                yield Check(f"{block}, degrees that the angle of resting weights moved", abs(end - start[block]), 1e-4)
                continue
            yield Check(f"{block}, degrees before, from 90", abs(start[block] - 90.0), 15.0)
            yield Check(f"{block}, degrees less after 1500 steps", start[block] - end, 20.0, "at least")


def direct_in_a_linear_net() -> Iterator[Check]:
    """In a linear net, with B the product of all later weights, it is backpropagation."""
    tanh = Backprop(perceptron())
    rule = DirectFeedbackAlignment(nn.Sequential(*(linear(tanh, i) for i in range(4))))
    downstream = torch.eye(3, dtype=torch.float64)
    for i in reversed(range(3)):
        downstream = downstream @ linear(rule, i + 1).weight.detach()
        rule.get_buffer(f"feedback_{i}").copy_(downstream)
    x, y = inputs(5, 6)
    found, _ = updates(rule, x, y)
    for part, gradient in by_backprop(rule, x, y).items():
        yield Check(f"gradient of {part}, and backpropagation's", apart(found[part], gradient), 1e-12)


def signs_by_hand() -> Iterator[Check]:
    """Direct feedback alignment's formula with sign(e) in the place of e, sample by sample."""
    rule = SignDirectFeedbackAlignment(perceptron())
    yield from expected_by_hand(rule, lambda i, e, _: rule.get_buffer(f"feedback_{i}").t() @ e.sign())


def direct_kolen_pollack_by_hand() -> Iterator[Check]:
    """Direct feedback alignment's formula, sample by sample; B takes the step of an output layer on its block."""
    rule = DirectKolenPollack(perceptron(), optimizer=SGD, decay=0.0)
    yield from expected_by_hand(rule, lambda i, e, _: rule.feedback[str(i)].t() @ e)
    x, y = inputs(5, 6)
    with torch.no_grad():
        h = rule.net[0](x)
        e = rule.net(x).softmax(1) - torch.eye(3, dtype=x.dtype)[y]
        outer = [torch.outer(e_n, h_n) for e_n, h_n in zip(e, h, strict=True)]
        expected = rule.feedback["0"] - 0.05 * torch.stack(outer).mean(0)
    rule.step(x, y)
    yield Check("the first feedback after a step", apart(rule.feedback["0"].detach(), expected), 1e-12)


def targets_know_nothing_of_the_output() -> Iterator[Check]:
    """Hidden gradients follow the formula with -B y, and are the same bits whatever the output block says."""
    rule = DirectRandomTargetProjection(perceptron())
    x, y = inputs(5, 6)
    own = iter([label for label in y.tolist() for _ in range(3)])
    yield from expected_by_hand(rule, lambda i, e, _: -rule.get_buffer(f"feedback_{i}")[next(own)])
    before, _ = updates(rule, x, y)
    with torch.no_grad():
        linear(rule, 3).weight.mul_(-3.0)
    after, _ = updates(rule, x, y)
    for i in range(3):
        part = f"blocks.{i}"
        yield Check(f"gradient of {part} with another output block", apart(after[part], before[part]), 0.0)
    other = apart(after["blocks.3"], before["blocks.3"])
    yield Check("the output block's own gradient then", other, 0.1, "at least", control=True)
