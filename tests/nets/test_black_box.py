"""Black boxes: what they do, against plain computations; what they refuse; and what may stand for their derivative."""

import copy

import pytest
import torch
from torch import Tensor, nn

import altprop
from altprop import UsageError, nets
from altprop.nets.boxed import BOXES
from altprop.nets.boxes import Stochastic, binary, distorted, quantised, rounded_at_random, table
from altprop.nets.curves import fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(*size: int) -> Tensor:
    return torch.randn(size, generator=generator(9))


def named(box: str, strength: float, **options: object) -> nn.Sequential:
    return nets.boxed([6, 8, 8], classes=3, box=box, strength=strength, generator=generator(5), **options)


# What a box does.


def test_rounding() -> None:
    x = torch.tensor([[-0.6, -0.2, 0.0, 0.2, 0.26, 0.7, 3.1]])
    expected = torch.tensor([[-0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 3.0]])
    torch.testing.assert_close(quantised(0.5)(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(binary(0.5)(x), torch.tensor([[0, 0, 0, 0, 0.5, 0.5, 0.5]]), rtol=0, atol=0)


def test_rounding_at_random_keeps_the_mean_and_is_new_every_time() -> None:
    x = torch.full((20_000,), 0.3)
    found = rounded_at_random(x, 0.4, generator())
    assert set(found.tolist()) == {0.0, float(torch.tensor(0.4))}
    assert float(found.mean()) == pytest.approx(0.3, abs=0.005)
    u = torch.rand(x.shape, generator=generator())
    assert torch.equal(found > 0, 0.3 / 0.4 + u >= 1)
    box = nets.black_box(Stochastic(0.4, seed=3))
    assert not torch.equal(box(x), box(x))


def test_a_table_has_an_error_for_each_entry() -> None:
    errors = torch.randn(1024, generator=generator(2))
    x = torch.tensor([[-3.0, 0.0, 0.49, 0.51, 2.0, 1e9]])
    places = torch.tensor([[0, 0, 0, 1, 2, 1023]])
    torch.testing.assert_close(table(1.0, generator(2))(x), places + errors[places])


def test_a_distortion_is_a_gain_an_offset_and_a_wave_of_each_unit() -> None:
    x, s = inputs(50, 4), 0.3
    g = generator(1)
    gains, offsets = torch.randn(2, 4, generator=g) * s
    paces, phases = torch.rand(2, 4, generator=g)
    box = distorted(s, 4, generator(1))
    for unit in range(4):
        wave = torch.sin((1 + 2 * paces[unit]) * x[:, unit] + 2 * torch.pi * phases[unit])
        expected = x[:, unit] * torch.exp(gains[unit]) + offsets[unit] + s * wave
        torch.testing.assert_close(box(x)[:, unit], expected)
    assert torch.equal(box(x), box(x))
    assert not torch.allclose(box(x), distorted(s, 4, generator(2))(x))


def test_noise_on_every_product_has_the_variance_of_the_sum_of_the_products_noises() -> None:
    plain = nets.linear(5, 3, "kaiming", generator())
    layer = nets.NoisyLinear(plain, 0.2, seed=1)
    x = inputs(1, 5)
    found = layer(x.expand(40_000, 5)).detach()
    each = 0.2 * torch.randn(40_000, 3, 5, generator=generator(3))  # by the products themselves
    byhand = (plain.weight * x * (1 + each)).sum(2).detach()
    torch.testing.assert_close(found.mean(0), plain(x)[0].detach(), rtol=0, atol=0.02)
    torch.testing.assert_close(found.std(0), byhand.std(0), rtol=0.02, atol=0)
    assert not torch.equal(layer(x), layer(x))


def test_noise_leaves_the_derivative_by_the_weights_as_it_is_and_refuses_the_one_by_the_input() -> None:
    layer, x = nets.NoisyLinear(nets.linear(5, 3, "kaiming", generator()), 0.2, seed=1), inputs(4, 5)
    delta = inputs(4, 3)
    (found,) = torch.autograd.grad(layer(x), layer.weight, delta)
    torch.testing.assert_close(found, delta.T @ x)
    with pytest.raises(UsageError, match="through a black box"):
        layer(x.requires_grad_()).backward(delta)
    straight = nets.NoisyLinear(layer, 0.2, seed=1, straight_through=True)
    (found,) = torch.autograd.grad(straight(x), x, delta)
    torch.testing.assert_close(found, delta @ layer.weight)


@pytest.mark.parametrize("derivative", ["none", "straight-through", "fitted"])
@pytest.mark.parametrize("box", BOXES)
def test_at_strength_0_it_is_the_plain_net_bit_for_bit(box: str, derivative: str) -> None:
    if (box, derivative) == ("noisy", "fitted"):
        pytest.skip("refused")
    plain = nets.mlp([6, 8, 8], classes=3, generator=generator(5))
    net = named(box, 0.0, derivative=derivative)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), plain.parameters(), strict=True))
    assert torch.equal(net.eval()(inputs(16, 6)), plain(inputs(16, 6)))
    assert not torch.equal(named(box, 1.0).eval()(inputs(16, 6)), plain(inputs(16, 6)))


def test_noise_is_the_same_again_after_a_checkpoint_and_evaluations_leave_it_alone() -> None:
    x = inputs(4, 6)
    for box in ("stochastic", "noisy"):
        one, other = named(box, 0.5), named(box, 0.5)
        one(x)
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        other.eval()(x)
        after = one(x)
        assert torch.equal(after, other.train()(x))
        assert not torch.equal(after, one(x))


def test_weights_are_worth_less_on_another_copy_of_the_hardware() -> None:
    x = inputs(16, 6)
    own, other = named("distorted", 0.5), named("distorted", 0.5, copies=(1, 1))
    other.load_state_dict(own.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(own.parameters(), other.parameters(), strict=True))
    assert not torch.allclose(own(x), other(x))
    moved = named("distorted", 0.5, copies=(0, 1))
    assert torch.equal(moved(x), own(x)) and torch.equal(moved.eval()(x), other(x))


# Derivatives.


def test_a_black_box_refuses_its_derivative_and_lets_others_pass() -> None:
    x = torch.linspace(-1, 5, 13).requires_grad_()
    out = nets.black_box(quantised(1.0))(x)
    assert set(out.tolist()) == {-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    with pytest.raises(UsageError, match="through a black box"):
        out.sum().backward()
    straight = nets.black_box(quantised(1.0), straight_through=True)(x)
    torch.testing.assert_close(straight, out)
    assert torch.autograd.grad(straight.sum(), x)[0].eq(1).all()


def test_the_fitted_model_has_the_derivative_of_the_box() -> None:
    """Without a penalty: of a cubic to rounding; of a multiple of tanh on [-1, 1], a unit's own, to 0.01."""
    x = (2 * torch.rand(200, 3, generator=generator()).double() - 1).requires_grad_()
    cubic = nets.black_box(lambda h: h + 2 * h**2 - h**3, model=nets.Curves(3, ridge=0.0).double())
    (slopes,) = torch.autograd.grad(cubic(x).sum(), x)
    torch.testing.assert_close(slopes, 1 + 4 * x.detach() - 3 * x.detach() ** 2)
    gains = torch.tensor([1.0, -1.0, 2.0])
    curves = nets.black_box(lambda h: gains * h.tanh(), model=nets.Curves(3, degree=7, ridge=0.0).double())
    (slopes,) = torch.autograd.grad(curves(x).sum(), x)
    torch.testing.assert_close(slopes, gains * (1 - x.detach().tanh() ** 2), rtol=0, atol=0.01)
    torch.testing.assert_close(curves(x), gains * x.tanh())


def test_a_fit_is_ridge_regression_of_each_unit() -> None:
    u, added = inputs(30, 2).double(), inputs(60, 1).view(30, 2).double()
    for unit, c in enumerate(fit(u, added, degree=2, ridge=0.1).T):
        a = torch.stack([torch.ones(30), u[:, unit], u[:, unit] ** 2], 1)
        stacked = torch.cat([a / 30**0.5, 0.1**0.5 * torch.eye(3)])
        expected = torch.linalg.lstsq(stacked, torch.cat([added[:, unit] / 30**0.5, torch.zeros(3)])).solution
        torch.testing.assert_close(c, expected)


def test_the_fitted_model_forgets_and_takes_what_it_does_not_know_for_the_identity() -> None:
    model = nets.Curves(2, memory=8)
    x = inputs(8, 2).requires_grad_()
    assert model.eval()(x, 2 * x) is x
    model.train()
    for start in (0, 3, 6):  # the first five are forgotten by halves
        model(inputs(9, 2)[start : start + 3], -inputs(9, 2)[start : start + 3])
    assert sorted(model.seen[:, 0].tolist()) == sorted(inputs(9, 2)[1:, 0].tolist())
    silent = nets.black_box(lambda h: h + 1, model=nets.Curves(2))
    zeros = torch.zeros(4, 2, requires_grad=True)
    assert torch.autograd.grad(silent(zeros).sum(), zeros)[0].eq(1).all()


# Rules on black boxes.


@pytest.mark.parametrize("box", BOXES)
def test_rules_that_need_every_derivative_refuse_black_boxes_in_words(box: str) -> None:
    closed = named(box, 0.5)
    for rule in (altprop.Backprop, altprop.PredictiveCoding, altprop.ForwardGradient):
        with pytest.raises(UsageError, match="a black box in it has no derivative"):
            rule(closed)
    altprop.Backprop(named(box, 0.5, derivative="straight-through"))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["SignalPropagation", "DirectFeedbackAlignment", "ErrorForward", "NodePerturbation"])
def test_rules_that_need_none_move_every_weight(name: str, box: str) -> None:
    net = named(box, 0.25)
    rule = getattr(altprop, name)(net)
    before = [p.detach().clone() for p in net.parameters()]
    for _ in range(3):
        rule.step(inputs(12, 6), torch.arange(12) % 3)
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_users_own_model_has_its_boxes_apart() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nets.black_box(quantised(0.5)), nn.Linear(8, 3))
    net = altprop.blocks(model)
    assert [type(block) for block in net] == [nets.Block, nets.BlackBox, nets.Block]
    altprop.SignalPropagation(net).step(inputs(12, 6), torch.arange(12) % 3)


# Bad input.


def test_a_black_box_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="must keep the shape"):
        nets.black_box(lambda x: x[:, :2])(torch.rand(3, 4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": "quantized"}, "choose one of distorted, table, quantised"),
        ({"derivative": "exact"}, "choose one of none, straight-through, fitted"),
        ({"box": "noisy", "derivative": "fitted"}, "take derivative='straight-through'"),
        ({"box": "noisy", "strength": -1.0}, "noise of strength -1"),
        ({"box": "table", "strength": -1.0}, "a black box of strength -1"),
        ({"box": "stochastic", "strength": float("nan")}, "a black box of strength nan"),
        ({"box": "quantised", "copies": (0, 1)}, "of which no two copies are alike"),
        ({"copies": (0,)}, "give two whole numbers"),
    ],
)
def test_bad_hardware_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        nets.boxed([6, 8], classes=3, **options)


def test_a_function_may_work_in_place() -> None:
    apart, inside = (nets.black_box(fn) for fn in (lambda x: (2 * x).round() / 2, lambda x: x.mul_(2).round_().div_(2)))
    found = []
    for box in (apart, inside):
        net = nn.Sequential(nets.linear(6, 8, "kaiming", generator()), box, nets.linear(8, 3, "kaiming", generator(1)))
        rule = altprop.PEPITA(net)
        rule.step(inputs(12, 6), torch.arange(12) % 3)
        found.append(net[0].weight)
    assert torch.equal(*found)


def test_what_comes_out_of_a_box_has_the_kind_of_what_went_in() -> None:
    x = inputs(5, 4)
    for fn in (lambda x: x > 0, lambda x: (x > 0).double(), lambda x: (x > 0).int()):
        out = nets.black_box(fn)(x)
        assert out.dtype == x.dtype and torch.equal(out, (x > 0).float())
    with pytest.raises(UsageError, match="made a ndarray of a tensor; its function must give a tensor"):
        nets.black_box(lambda x: x.numpy())(x)


def test_a_box_inside_of_a_block_refuses_forward_derivatives_too() -> None:
    net = nn.Sequential(nets.Block(nets.linear(6, 8, "kaiming", generator()), None, nets.black_box(torch.round)))
    rule = altprop.LocalForwardGradient(net, altprop.Problem((6,), 3))
    with pytest.raises(UsageError, match="a derivative was asked for through a black box"):
        rule.step(inputs(12, 6), torch.arange(12) % 3)


@pytest.mark.parametrize("box", ["noisy", "stochastic"])
def test_evaluating_does_not_use_up_the_noise_of_training(box: str) -> None:
    plain, watched = (altprop.SignalPropagation(named(box, 0.5)) for _ in range(2))
    for _ in range(3):
        for rule in (plain, watched):
            rule.step(inputs(12, 6), torch.arange(12) % 3)
        watched.finish()
        watched.eval().adaptive(inputs(12, 6))
    assert all(
        torch.equal(p, q) for p, q in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )


def test_the_tree_of_targets_grows_on_the_hardware_that_predicts() -> None:
    rule = altprop.SignalPropagation(named("distorted", 1.0, copies=(0, 1)), margin=2.0)
    rule.step(inputs(12, 6), torch.arange(12) % 3)
    rule.finish()
    assert rule.training
    scores, _ = rule.eval().adaptive(inputs(12, 6))
    torch.testing.assert_close(scores, rule.nearest(inputs(12, 6)))
