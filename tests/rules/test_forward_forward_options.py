"""Forward-forward's choices (goodness, label, loss, phases, nets), each against its loss written out in autograd."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from altprop import nets, schedules
from altprop.analysis.trace import Trace
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.forward_forward import ForwardForward
from altprop.rules.forward_only.goodness import ChannelGroups, MeanOfSquares, Regions
from altprop.rules.forward_only.negatives import hard_negatives, uniform_negatives

CLASSES, BATCH = 3, 6
STILL = partial(torch.optim.SGD, lr=0.0)
IMAGE = (1, 8, 8)


def flat(extra: int = 0) -> nn.Sequential:
    return nets.mlp([12 + extra, 8, 7, 6])


def local(channels: int) -> nn.Sequential:
    return nets.local((channels, 8, 8), [(4, 4, 2), (6, 2, 1)])


def build(net: nn.Sequential, shape: tuple[int, ...] = (12,), **options: Any) -> ForwardForward:
    options = {"optimizer": STILL, "peer": 0.0, "generator": torch.Generator().manual_seed(5)} | options
    rule = ForwardForward(net.double(), Problem(shape, CLASSES), **options)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for head in rule.heads.values():
            head.weight.normal_(generator=generator)
    return rule


def batch(shape: tuple[int, ...] = (12,)) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(BATCH, *shape, generator=g, dtype=torch.float64), torch.arange(BATCH) % CLASSES


def gradients(rule: ForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What one step puts into `.grad` of the net."""
    names = {p: n for n, p in rule.net.named_parameters()}
    found: dict[str, Tensor] = {}

    def catch(optimizer: torch.optim.Optimizer, *_: object) -> None:
        owned = [p for g in optimizer.param_groups for p in g["params"] if p in names]
        found.update((names[p], p.grad.clone()) for p in owned)

    hooks = [optimizer.register_step_pre_hook(catch) for optimizer in rule.optimizers.values()]
    rule.step(x, y)
    for hook in hooks:
        hook.remove()
    return found


def written(rule: ForwardForward, x: Tensor, y: Tensor) -> Tensor:
    """The inputs with their labels, in full."""
    if rule.labels.placement == "overlay":
        out = x.clone().flatten(1)
        out[:, :CLASSES] = 2.0 * nn.functional.one_hot(y, CLASSES)
        return out.view_as(x)
    if rule.labels.placement == "concatenate":
        return torch.cat([x, 2.0 * nn.functional.one_hot(y, CLASSES)], 1)
    return torch.cat([x, rule.labels.codes[y, x.size(1) :]], 1)


def unit(h: Tensor) -> Tensor:
    flat = h.flatten(1)
    return (flat / flat.square().mean(1, keepdim=True).sqrt()).view_as(h)


def drawn(rule: ForwardForward, x: Tensor, y: Tensor) -> Tensor:
    generator = torch.Generator()
    generator.set_state(rule.generator.get_state())
    if rule.negatives == "uniform":
        return uniform_negatives(y, CLASSES, generator)
    return hard_negatives(rule(x).detach(), y, generator)


def streams(rule: ForwardForward, a: Tensor) -> list[Tensor]:
    """Every block's activities, no gradient crossing a block."""
    hs = []
    for block in rule.net:
        hs.append(block(a))
        a = (unit(hs[-1]) if rule.normalise else hs[-1]).detach()
    return hs


def naive(rule: ForwardForward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Autograd of the blocks' losses on positives and negatives that are written out, one stream at a time."""
    positive, negative = (written(rule, x, label) for label in (y, drawn(rule, x, y)))
    if rule.normalise:
        positive, negative = unit(positive), unit(negative)
    up, down = streams(rule, positive), streams(rule, negative)
    excess = [[rule.goodness[i](h) - rule.thresholds[i] for i, h in enumerate(side)] for side in (up, down)]
    found = {}
    for i, block in enumerate(rule.net):
        g, b = excess[0][i], excess[1][i]
        if rule.collaborate:
            g = g + sum(other.sum(1, keepdim=True).detach() for j, other in enumerate(excess[0]) if j != i)
            b = b + sum(other.sum(1, keepdim=True).detach() for j, other in enumerate(excess[1]) if j != i)
        if rule.loss == "symba":
            loss = softplus(-(g - b) / rule.temperature).mean()
        else:
            loss = torch.cat([softplus(-g / rule.temperature), softplus(b / rule.temperature)]).mean()
        names = [f"{i}.{n}" for n, _ in block.named_parameters()]
        found |= dict(zip(names, torch.autograd.grad(loss, list(block.parameters()), retain_graph=True), strict=True))
    return found


def check(rule: ForwardForward, shape: tuple[int, ...] = (12,)) -> None:
    x, y = batch(shape)
    expected = naive(rule, x, y)
    found = gradients(rule, x, y)
    assert found.keys() == expected.keys()
    for name in expected:
        assert expected[name].abs().max() > 1e-9, f"nothing is compared in {name}"
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


KINDS = ["mean-of-squares", "sum-of-absolutes", "negative-sum-of-squares", "negative-mean-of-squares", "sparse"]


@pytest.mark.parametrize("negatives", ["hard", "uniform"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_goodness_of_a_perceptron(kind: str, negatives: str) -> None:
    check(build(flat(), goodness=kind, negatives=negatives))


@pytest.mark.parametrize(("placement", "extra"), [("overlay", 0), ("concatenate", CLASSES), ("channel", 12)])
@pytest.mark.parametrize("normalise", [True, False])
def test_each_place_of_the_label(placement: str, extra: int, normalise: bool) -> None:
    check(build(flat(extra), placement=placement, normalise=normalise))


@pytest.mark.parametrize(
    "options", [{"loss": "symba", "goodness": "mean-of-squares", "temperature": 0.25}, {"collaborate": True}]
)
@pytest.mark.parametrize("negatives", ["hard", "uniform"])
def test_symba_and_collaboration(options: dict[str, Any], negatives: str) -> None:
    check(build(flat(), negatives=negatives, **options))


@pytest.mark.parametrize(("placement", "channels"), [("overlay", 1), ("channel", 2)])
@pytest.mark.parametrize("kind", ["conv", "local"])
def test_convolutional_and_local_blocks(kind: str, placement: str, channels: int) -> None:
    net = nets.conv((channels, 8, 8), [4, 5]) if kind == "conv" else local(channels)
    check(build(net, IMAGE, placement=placement), IMAGE)


def test_groups_of_channels_and_regions_decide_by_themselves() -> None:
    check(build(local(2), IMAGE, placement="channel", goodness=[ChannelGroups(2), MeanOfSquares()]), IMAGE)
    check(build(local(2), IMAGE, placement="channel", goodness=[Regions(3, 3), "sum-of-squares"]), IMAGE)


def test_collaboration_changes_the_updates_and_adds_the_same_for_positives_and_negatives() -> None:
    x, y = batch()
    alone, together = (gradients(build(flat(), collaborate=c), x, y) for c in (False, True))
    for name in alone:
        cosine = nn.functional.cosine_similarity(alone[name].flatten(), together[name].flatten(), dim=0)
        assert 0 < cosine < 0.9999
    assert build(flat(), collaborate=True).claims.later_blocks == "all"


def test_the_goodness_of_all_blocks_or_all_but_the_first_is_read() -> None:
    x, y = batch()
    some, every = build(flat()), build(flat(), skip_first=False)
    assert (some.read, every.read) == ([1, 2], [0, 1, 2])
    first = torch.stack([some.activities(x, torch.full_like(y, c))[0].square().sum(1) for c in range(CLASSES)], 1)
    torch.testing.assert_close(every.energy(x), some.energy(x) + first)


def test_blocks_learn_one_after_another_each_with_the_whole_schedule() -> None:
    rule = build(flat(), together=False, optimizer=partial(torch.optim.SGD, lr=0.1), schedule=schedules.fall)
    x, y = batch()
    for progress, active in ((0.0, 0), (0.3, 0), (0.34, 1), (0.99, 2)):
        before = [block.affine.weight.clone() for block in rule.net]
        rule.progress = progress
        rule.step(x, y)
        moved = [not torch.equal(block.affine.weight, old) for block, old in zip(rule.net, before, strict=True)]
        assert moved == [i == active for i in range(3)]
        assert rule.optimizers[f"blocks.{active}"].param_groups[0]["lr"] == pytest.approx(
            0.1 * (1 - (3 * progress - active))
        )


def test_sleep_parts_the_phases_and_survives_a_checkpoint() -> None:
    x, y = batch()
    rule = build(flat(), sleep=2, optimizer=partial(torch.optim.SGD, lr=0.01))
    signs = []
    for _ in range(8):
        _, sign = rule._contrast(y, (y + 1) % CLASSES)
        signs.append(int(sign[0]))
    assert signs == [1, 1, -1, -1] * 2
    before = rule.energy(x).mean().item()
    for _ in range(2):
        rule.step(x, y)
    awake = rule.energy(x).mean().item()
    saved = rule.training_state()
    for _ in range(2):
        rule.step(x, y)
    assert rule.energy(x).mean().item() < awake > before
    again = build(flat(), sleep=2, optimizer=partial(torch.optim.SGD, lr=0.01))
    again.load_training_state(saved)
    for _ in range(2):
        again.step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(rule.parameters(), again.parameters(), strict=True))


def test_both_phases_of_sleep_add_up_to_one_awake_step() -> None:
    x, y = batch()
    awake = gradients(build(flat(), negatives="uniform"), x, y)
    rule = build(flat(), sleep=1, negatives="uniform")
    state = rule.generator.get_state()
    day = gradients(rule, x, y)
    rule.generator.set_state(state)
    night = gradients(rule, x, y)
    for name in awake:
        torch.testing.assert_close((day[name] + night[name]) / 2, awake[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("collaborate", [False, True])
def test_peak_memory_is_the_same_at_any_depth(collaborate: bool) -> None:
    peaks = set()
    for depth in (4, 16, 64):
        rule = build(nets.mlp([12] + [16] * depth), collaborate=collaborate, peer=0.03)
        rule.step(*batch())
        with Trace({}) as trace:
            rule.step(*batch())
        peaks.add(trace.peak_bytes)
    assert len(peaks) == 1 or collaborate, peaks  # collaboration keeps a number a block and sample
    assert max(peaks) - min(peaks) <= 60 * 2 * BATCH * 8 * 4


def test_patterns_are_as_long_as_a_one_hot_label_and_differ() -> None:
    codes = build(local(2), IMAGE, placement="channel").labels.codes
    assert codes.shape == (CLASSES + 1, 2, 8, 8)
    assert bool((codes[:, 0] == 0).all())
    torch.testing.assert_close(codes[:CLASSES].flatten(1).norm(dim=1), torch.full((CLASSES,), 2.0).double())
    torch.testing.assert_close(codes[CLASSES], 0.05 * codes[:CLASSES].sum(0))
    assert torch.pdist(codes[:CLASSES].flatten(1)).min() > 1


@pytest.mark.parametrize(
    ("net", "shape", "options", "words"),
    [
        (flat(), (12,), {"placement": "concatenate"}, "build the net for 15"),
        (flat(), (12,), {"placement": "inside"}, "placement='inside' is not known"),
        (flat(), (12,), {"goodness": ChannelGroups(5)}, "goodness of block 0"),
        (flat(), (12,), {"goodness": ["sum-of-squares"]}, "1 kinds of goodness for 3 blocks"),
        (flat(), (12,), {"goodness": "sum-of-square"}, "did you mean 'sum-of-squares'"),
        (flat(), (12,), {"goodness": Regions(2, 2)}, "goodness of block 0"),
        (flat(), (12,), {"loss": "symba", "sleep": 3}, "same step"),
        (flat(), (12,), {"loss": "hinge"}, "loss='hinge'"),
        (local(1), IMAGE, {"placement": "channel"}, "build the net for 2"),
        (local(1), IMAGE, {"placement": "concatenate"}, "for flat inputs"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    net: nn.Sequential, shape: tuple[int, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        build(net, shape, **options)


def test_it_learns_stripes_on_a_local_net_and_a_convolutional_one() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (600,), generator=g)
    ramp = torch.arange(8) % 4 < 2
    kinds = torch.stack([ramp.expand(8, 8), ramp.expand(8, 8).T, torch.rand(8, 8, generator=g) > 0.5]).float()
    x = (kinds[y] + 0.5 * torch.randn(600, 8, 8, generator=g)).unsqueeze(1)
    for net in (local(2), nets.conv((2, 8, 8), [8, 8])):
        rule = ForwardForward(net, Problem(IMAGE, CLASSES), placement="channel", label=6.0)
        for _ in range(10):
            for i in range(0, 600, 50):
                rule.step(x[i : i + 50], y[i : i + 50])
        for name, predict in rule.predictors().items():
            assert (predict(x).argmax(1) == y).float().mean() > 0.8, name
