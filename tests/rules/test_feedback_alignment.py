"""What the chained rules have in common: feedback that stays or is drawn as promised, nets that they take, costs."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.analysis.angles import angles
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.feedback.chain import Chain
from altprop.rules.feedback.feedback_alignment import FeedbackAlignment
from altprop.rules.feedback.kolen_pollack import KolenPollack
from altprop.rules.feedback.sign_symmetry import SignSymmetry
from altprop.rules.feedback.weight_mirror import WeightMirror
from altprop.rules.reference.backprop import Backprop
from steps import gradients

SGD = partial(torch.optim.SGD, lr=0.1)
KINDS: dict[str, Callable[..., Chain]] = {
    "fa": FeedbackAlignment,
    "usf": SignSymmetry,
    "frsf": partial(SignSymmetry, magnitudes="fixed"),
    "brsf": partial(SignSymmetry, magnitudes="batch"),
    "kp": KolenPollack,
    "wm": WeightMirror,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def batch(*shape: int, classes: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=g, dtype=dtype), torch.randint(classes, shape[:1], generator=g)


def mlp(widths: tuple[int, ...] = (6, 8, 7), classes: int = 4, **options: object) -> nn.Sequential:
    return nets.mlp(widths, classes=classes, **options).double()


@every_kind
@pytest.mark.parametrize("seed", [0, 1])
def test_feedback_comes_from_the_generator_and_only_the_first_block_has_none(kind: str, seed: int) -> None:
    def build(seed: int) -> Chain:
        return KINDS[kind](mlp(), optimizer=SGD, generator=torch.Generator().manual_seed(seed))

    rule = build(seed)
    assert rule.above == [1, 2]
    for i in rule.above:
        assert rule.back(i).shape == rule.layer(i).weight.shape and rule.back(i).dtype == torch.float64
    same = torch.equal(build(seed).back(1), build(seed + 1).back(1))
    assert same == (kind == "usf") and torch.equal(build(seed).back(1), build(seed).back(1))


@pytest.mark.parametrize("kind", ["fa", "kp", "wm"])
def test_random_feedback_has_the_size_of_the_weights(kind: str) -> None:
    rule = KINDS[kind](mlp((6, 100, 90), init="kaiming"), scale=2.0)
    ratio = float(rule.back(1).detach().norm() / rule.layer(1).weight.detach().norm())
    assert ratio == pytest.approx(2.0, rel=0.05)


@every_kind
def test_feedback_stays_or_learns(kind: str) -> None:
    rule = KINDS[kind](mlp(), optimizer=SGD)
    before = {name: value.clone() for name, value in rule.state_dict().items() if not name.startswith("net.")}
    rule.step(*batch(5, 6))
    moved = [name for name, value in before.items() if not torch.equal(rule.state_dict()[name], value)]
    assert moved == (list(before) if kind in ("kp", "wm") else [])
    assert bool(before) == (kind not in ("usf", "brsf"))


@every_kind
def test_angles(kind: str) -> None:
    rule, other = (KINDS[kind](mlp((6, 100, 90)), optimizer=SGD) for _ in range(2))
    found = angles(rule)
    assert list(found) == ["blocks.1", "blocks.2"]
    low, high = {"usf": (30, 42), "frsf": (35, 55), "brsf": (35, 55)}.get(kind, (75, 105))
    assert all(low < value < high for value in found.values()), found
    x, y = batch(5, 6)
    rule.step(x, y), other.step(x, y)
    assert all(torch.equal(p, q) for p, q in zip(rule.parameters(), other.parameters(), strict=True))


@every_kind
def test_convolutions_norms_and_regression(kind: str) -> None:
    net = nets.conv((2, 8, 8), [3, 5], classes=3, norm=True).double()
    rule = KINDS[kind](net, Problem((2, 8, 8), 3, "regression"), optimizer=SGD)
    before = [p.detach().clone() for p in net.parameters()]
    x, _ = batch(4, 2, 8, 8)
    targets = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    loss = rule.step(x, targets)["loss"]
    twin = Backprop(nets.conv((2, 8, 8), [3, 5], classes=3, norm=True).double(), Problem((2, 8, 8), 3, "regression"))
    torch.testing.assert_close(loss, twin.step(x, targets)["loss"])
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@every_kind
def test_affine_norms_inside_a_block_learn(kind: str) -> None:
    blocks = [nets.Block(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.PReLU()), nets.Block(nn.Linear(8, 8), nn.LayerNorm(8))]
    rule = KINDS[kind](nn.Sequential(*blocks, nn.Linear(8, 4)).double(), optimizer=SGD)
    found = gradients(rule, *batch(5, 6))
    assert {"net.0.norm.weight", "net.1.norm.bias", "net.0.activation.weight"} <= set(found)


@every_kind
def test_frozen_blocks_stay_and_hand_the_error_on(kind: str) -> None:
    net = mlp((6, 8, 7, 5))
    net[0].requires_grad_(False)
    net[2].requires_grad_(False)
    rule = KINDS[kind](net, optimizer=SGD)
    assert rule.above == [2, 3]
    before = [block.affine.weight.clone() for block in net]
    rule.step(*batch(5, 6))
    stayed = [torch.equal(block.affine.weight, w) for block, w in zip(net, before, strict=True)]
    assert stayed == [True, False, True, False]


@pytest.mark.parametrize("kind", ["fa", "usf"])
def test_operations_are_those_of_backprop(kind: str) -> None:
    x, y = batch(16, 12, dtype=torch.float32)
    counts = []
    for build in (KINDS[kind], Backprop):
        rule = build(nets.mlp([12, 10, 9], classes=4))
        rule.step(x, y)
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        counts.append(trace.operations)
    assert counts[0] == counts[1]


def test_mirrors_cost_two_products_of_their_samples() -> None:
    n0, n1, n2, c, samples = 12, 10, 9, 4, 5
    x, y = batch(16, n0, dtype=torch.float32)
    counts = []
    for rule in (
        WeightMirror(nets.mlp([n0, n1, n2], classes=c), samples=samples),
        Backprop(nets.mlp([n0, n1, n2], classes=c)),
    ):
        with Trace(dict(rule.named_parameters())) as trace:
            rule.step(x, y)
        counts.append(trace.operations)
    assert counts[0] - counts[1] == 2 * 2 * samples * (n1 * n2 + n2 * c)


@every_kind
@pytest.mark.parametrize(
    ("block", "words"),
    [
        (lambda: nets.Block(nn.Conv1d(6, 8, 1)), "block 0 holds a Conv1d"),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU()), "inside a module of its own"),
        (lambda: nets.Scaled(6, 8, 1.0, torch.Generator()), "a form of its own"),
    ],
)
def test_nets_that_have_no_feedback_weights_are_refused(kind: str, block: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        KINDS[kind](nn.Sequential(block(), nn.Linear(8, 4)), Problem((6,), 4))


def test_a_net_without_an_output_block_is_refused() -> None:
    with pytest.raises(UsageError, match="output block with 4 outputs"):
        FeedbackAlignment(nets.mlp([6, 4]), Problem((6,), 4))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(SignSymmetry, magnitudes="none"), "choose 'unit', 'fixed', 'batch'"),
        (partial(KolenPollack, decay=1.0), "at least 0 and below 1"),
        (partial(KolenPollack, decay=-0.1), "at least 0 and below 1"),
        (partial(WeightMirror, samples=0), "samples must be at least 1"),
        (partial(WeightMirror, rate=0.0), "rate above 0"),
    ],
)
def test_bad_options(build: Callable[[nn.Sequential], Chain], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(mlp())


def test_decay_follows_the_schedule() -> None:
    rule = KolenPollack(mlp(), decay=0.1, schedule=lambda progress: 1.0 - progress, optimizer=SGD)
    rule.progress = 0.75
    before = (rule.layer(1).weight - rule.back(1)).detach()
    rule.step(*batch(5, 6))
    torch.testing.assert_close((rule.layer(1).weight - rule.back(1)).detach(), before * (1 - 0.1 * 0.25))


def test_clipping_feedback_does_not_clip_the_weights() -> None:
    """Hooks on a part's optimizer may write gradients in place."""

    def clip(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad.zero_()

    rules = [KolenPollack(mlp(), optimizer=SGD, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    rules[1].optimizers["feedback"].register_step_pre_hook(clip)
    x, y = batch(9, 6)
    for rule in rules:
        rule.step(x, y)
    assert all(torch.equal(p, q) for p, q in zip(rules[0].net.parameters(), rules[1].net.parameters(), strict=True))
    assert not torch.equal(rules[0].feedback["1"], rules[1].feedback["1"])


def test_claims_of_fixed_magnitudes_say_that_they_are_kept() -> None:
    assert not SignSymmetry.claims.training_only and not SignSymmetry(mlp()).claims.training_only
    assert SignSymmetry(mlp(), magnitudes="fixed").claims.training_only
