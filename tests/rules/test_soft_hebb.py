"""SoftHebb: what it refuses, what it counts, when its body and its readout stop, and its nets."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.hebbian.soft_hebb import SoftHebb
from altprop.rules.hebbian.soft_hebb_presets import PRESETS

SGD = {"blocks": partial(torch.optim.SGD, lr=0.1), "head": partial(torch.optim.SGD, lr=0.1)}


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(*shape, generator=g), torch.randint(4, shape[:1], generator=g)


def small(**options: Any) -> SoftHebb:
    return SoftHebb(nets.soft_hebb_mlp([6, 8]), Problem((6,), 4), optimizer=SGD, **options)


def deep(**options: Any) -> SoftHebb:
    return SoftHebb(nets.soft_hebb((1, 12, 12), [4, 6]), Problem((1, 12, 12), 4), optimizer=SGD, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"competition": "weak"}, 'competition is "signed"'),
        ({"normalise": "net"}, "normalise"),
        ({"power": -1.0}, "power at least 0"),
        ({"inverse_temperature": [1.0, 2.0]}, "for each of the 1 blocks"),
        ({"inverse_temperature": 0.0}, "one positive number"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        small(**options)


def test_winners_are_counted_and_the_dead_are_said() -> None:
    rule = small()
    x, y = batch(32, 6)
    u = rule.net[0].affine(x)
    share = 1.0 - len(u.argmax(1).unique()) / 8
    assert float(rule.step(x, y)["dead"]) == pytest.approx(share)
    assert torch.equal(rule.wins(0), torch.bincount(u.argmax(1), minlength=8).float())
    assert share > 0


def test_each_block_has_its_temperature() -> None:
    rule = deep(inverse_temperature=[1.0, 0.5], competition="soft")
    u = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rule.activities(3, u), torch.softmax(0.5 * u, 1))
    torch.testing.assert_close(rule.activities(1, u[:, :4]), torch.softmax(u[:, :4], 1))


def test_the_body_stops_with_its_statistics_and_the_readout_waits_for_it() -> None:
    rule = deep(settle=0.5, wait=True, decay=False, readout="ridge")
    x, y = batch(8, 1, 12, 12)
    for progress, learns in ((0.0, True), (0.49, True), (0.5, False), (0.9, False)):
        rule.progress = progress
        before = {k: v.clone() for k, v in rule.net.state_dict().items()}
        rule.step(x, y)
        moved = {k: not torch.equal(v, before[k]) for k, v in rule.net.state_dict().items()}
        assert all(moved.values()) if learns else not any(moved.values())
        assert bool(rule.head.counts.any()) is not learns
    assert float(rule.head.counts.sum()) == 16.0  # nothing was forgotten


def test_the_rate_stays_without_decay() -> None:
    rule, falling = small(decay=False, settle=0.5), small(settle=0.5)
    rule.progress = falling.progress = 0.25
    assert (rule.rate, falling.rate) == (1.0, 0.5)


def test_a_frozen_body_does_not_make_the_readout_wait() -> None:
    net = nets.soft_hebb_mlp([6, 8]).requires_grad_(False)
    rule = SoftHebb(net, Problem((6,), 4), optimizer=SGD, wait=True)
    rule.step(*batch(32, 6))
    assert bool(rule.head.layer.weight.any())


def test_a_unit_that_wins_nothing_stays_where_it_is() -> None:
    rule = small(competition="hard", normalise="unit")
    layer = rule.net[0].affine
    before = layer.weight.detach().clone()
    x, y = batch(4, 6)
    won = torch.zeros(8, dtype=torch.bool)
    won[layer(x).argmax(1)] = True
    rule.step(x, y)
    assert torch.equal((layer.weight != before).any(1), won) and bool(torch.isfinite(layer.weight).all())


def test_convolutions_see_reflected_padding() -> None:
    """The same image with its reflection around it, and no padding, gives the same change."""
    rule = deep()
    layer = rule.net[1].affine
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = rule.change(1, layer, x, layer(x))
        around = nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
        bare = nn.Conv2d(1, 4, 5, bias=False)
        bare.weight.copy_(layer.weight)
        torch.testing.assert_close(found, rule.change(1, bare, around, bare(around)))


def test_triangles_compare_units_at_each_place() -> None:
    u = torch.tensor([[1.0, 2.0, 6.0]])
    assert torch.equal(nets.Triangle()(u), torch.tensor([[0.0, 0.0, 3.0]]))
    torch.testing.assert_close(nets.Triangle(2.0)(u.view(1, 3, 1, 1)).flatten(), torch.tensor([0.0, 0.0, 9.0]))
    u.requires_grad_()
    nets.Triangle(0.5)(u).sum().backward()
    assert u.grad is not None and bool(torch.isfinite(u.grad).all())


def test_nets_have_the_shapes_of_the_paper() -> None:
    net = nets.soft_hebb((3, 32, 32), classes=10)
    assert [s[0] for s in nets.shapes(net, (3, 32, 32))] == [3, 96, 96, 384, 384, 1536 * 4 * 4, 10]
    norms = net[1].affine.weight.detach().flatten(1).norm(dim=1)
    assert abs(float(norms.mean()) - 25.0) < 1.0 and 17 < float(norms.min()) < float(norms.max()) < 33
    assert nets.shapes(nets.soft_hebb((1, 28, 28), [8, 16], grid=3), (1, 28, 28))[-1] == (16 * 9,)
    weight = nets.soft_hebb_mlp([784, 100])[0].affine.weight.detach()
    assert float(weight.min()) >= 0 and float(weight.norm(dim=1).mean()) == pytest.approx(35.0, rel=0.02)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nets.soft_hebb((3, 32), [4]), "height, width"),
        (lambda: nets.soft_hebb((3, 32, 32), [4, 4, 4, 4]), "as many kernels"),
        (lambda: nets.soft_hebb((3, 32, 32), [4], pools=("min",)), "no 'min'"),
        (lambda: nets.soft_hebb((3, 2, 2), [4]), "kernel of 5 does not suit images of 2"),
        (lambda: nets.soft_hebb((3, 32, 32), [4], kernels=(4,)), "take an odd one"),
        (lambda: nets.soft_hebb_mlp([4]), "at least one more"),
    ],
)
def test_nets_that_cannot_be(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


SIZES = {"stl": 96, "stl-4": 96, "imagenet": 160}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_learn(name: str) -> None:
    size = SIZES.get(name, 32)
    problem = Problem((3, size, size), 4)
    rule = SoftHebb.preset(name, problem, width=1 / 48, readout="class-mean")
    own = PRESETS[name]
    layers = [nets.affine(rule.net[i]) for i in rule.layers]
    assert [layer.out_channels for layer in layers] == [round(n / 48) for n in own.channels]
    rates = [rule.optimizers[f"blocks.{i}"].param_groups[0]["lr"] for i in rule.layers]
    assert tuple(rates) == own.rates and tuple(rule.inverse_temperature.values()) == own.inverse_temperature
    assert rule.power == own.power and rule.competition == own.competition
    before = [layer.weight.detach().clone() for layer in layers]
    x, y = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(2)
    rule.step(x, y)
    assert not any(torch.equal(layer.weight, w) for layer, w in zip(layers, before, strict=True))
    assert rule(x).shape == (2, 4)


def test_a_preset_of_the_authors_width_is_their_net() -> None:
    rule = SoftHebb.preset("cifar", Problem((3, 32, 32), 10), power=0.2)
    own = nets.soft_hebb((3, 32, 32))
    assert [p.shape for p in rule.net.parameters()] == [p.shape for p in own.parameters()] and rule.power == 0.2
    assert repr(rule.net) == repr(own)


def test_presets_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="choose one of cifar-1, cifar-2, cifar, cifar-hard, stl"):
        SoftHebb.preset("mnist", Problem((1, 28, 28), 10))
    with pytest.raises(UsageError, match="give a width above 0"):
        SoftHebb.preset("cifar", Problem((3, 32, 32), 10), width=0.0)
