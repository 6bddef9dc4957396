"""Neurons in time, and steps: against loops written out by hand, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.rules.forward_only.signal_propagation import SignalPropagation


def sums(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_integrate_and_fire_neuron_by_neuron() -> None:
    z = sums(2, 6, 3)
    neuron = nets.LeakyIntegrateAndFire(decay=0.8, threshold=0.7)
    spikes, voltages = neuron.respond(z)
    for b in range(2):
        for n in range(3):
            v = s = 0.0
            for t in range(6):
                v = 0.8 * v + float(z[b, t, n]) - 0.7 * s
                s = float(v >= 0.7)
                assert float(voltages[b, t, n]) == pytest.approx(v, abs=1e-12) and float(spikes[b, t, n]) == s
    assert 0 < float(spikes.mean()) < 1


def test_a_static_input_is_held() -> None:
    z = sums(2, 3)
    for neuron in (nets.LeakyIntegrateAndFire(5), nets.LeakyRate(nn.ReLU(), 5)):
        torch.testing.assert_close(neuron(z), neuron(z.unsqueeze(1).repeat(1, 5, 1)))
    images = sums(2, 3, 4, 4)
    assert nets.LeakyIntegrateAndFire(5)(images).shape == (2, 5, 3, 4, 4)


def test_rates_approach_the_static_activation() -> None:
    z = sums(2, 3)
    states = nets.LeakyRate(nn.Tanh(), 200, rate=0.2)(z)
    torch.testing.assert_close(states[:, -1], z.tanh(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(states[:, 0], 0.2 * z.tanh())
    torch.testing.assert_close(states[:, 2], (1 - 0.8**3) * z.tanh())


def test_voltage_has_a_derivative_without_any_surrogate_and_spikes_have_none() -> None:
    z = sums(1, 4, 2).requires_grad_()
    spikes, voltages = nets.LeakyIntegrateAndFire(decay=0.5).respond(z)
    assert not spikes.requires_grad
    (found,) = torch.autograd.grad(voltages[:, -1].sum(), z)
    expected = torch.tensor([0.125, 0.25, 0.5, 1.0], dtype=torch.float64).view(1, 4, 1).expand_as(z)
    torch.testing.assert_close(found, expected)


def test_spikes_with_a_derivative_have_that_of_the_surrogate() -> None:
    z = sums(3, 1, 4).requires_grad_()
    neuron = nets.LeakyIntegrateAndFire(derivative=True, slope=3.0, shows="surrogate")
    spikes, surrogate = neuron.respond(z)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    smooth = torch.sigmoid(3.0 * (z - 1.0))
    torch.testing.assert_close(surrogate, smooth)
    (found,) = torch.autograd.grad(spikes.sum(), z)
    torch.testing.assert_close(found, (3.0 * smooth * (1 - smooth)).detach())


def test_sign_shows_what_it_is_a_step_of() -> None:
    z = torch.tensor([[-2.0, -0.5, 0.0, 0.3, 4.0]], requires_grad=True)
    out, seen = nets.observe(nn.Sequential(nn.Identity(), nets.Sign()), z)
    assert out.tolist() == [[-1, -1, 1, 1, 1]] and not out.requires_grad
    torch.testing.assert_close(seen, z.clamp(-1, 1))
    straight = nets.Sign(straight_through=True)(z)
    assert straight.tolist() == [[-1, -1, 1, 1, 1]]
    assert torch.autograd.grad(straight.sum(), z)[0].tolist() == [[0, 1, 1, 1, 0]]


def test_observe_calls_a_block_as_everybody_does_and_keeps_nothing() -> None:
    block = nets.Block(nn.Linear(3, 4), None, nets.Sign())
    calls: list[int] = []
    block.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 3)
    out, seen = nets.observe(block, x)
    assert torch.equal(out, block(x)) and len(calls) == 2
    torch.testing.assert_close(seen, block.affine(x).clamp(-1, 1))
    assert block.activation._watched is None
    plain = nn.Linear(3, 4)
    first, second = nets.observe(plain, x)
    assert first is second


def test_nets_over_time_are_rows_of_blocks_that_end_in_a_mean() -> None:
    x = torch.rand(5, 6)
    for net in (nets.spiking([6, 8, 7], classes=3, steps=4), nets.rates([6, 8, 7], classes=3, steps=4)):
        assert nets.shapes(net, (6,)) == [(4, 8), (4, 7), (7,), (3,)]
        h = net[1](net[0](x))
        torch.testing.assert_close(net(x), net[-1](h.mean(1)))
    assert len(nets.spiking([6, 8], steps=4)) == 2


def test_a_cell_of_another_library() -> None:
    z = sums(2, 6, 3)
    ours = nets.LeakyIntegrateAndFire(decay=0.8, threshold=0.7)

    def cell(current: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As snntorch's Leaky: the reset of the last spike is taken off at the next step."""
        v = 0.8 * v + current - 0.7 * (v >= 0.7).to(v)
        return (v >= 0.7).to(v), v

    spikes, voltages = nets.Cell(cell).respond(z)
    expected, ours_v = ours.respond(z)
    torch.testing.assert_close(spikes, expected)
    torch.testing.assert_close(voltages, ours_v)


def test_snntorch_neurons_go_in() -> None:
    snntorch = pytest.importorskip("snntorch", reason="the extra altprop[spiking] is not installed")
    z = sums(2, 6, 3).float()
    spikes, voltages = nets.Cell(snntorch.Leaky(beta=0.8, threshold=0.7)).respond(z)
    expected, ours_v = nets.LeakyIntegrateAndFire(decay=0.8, threshold=0.7).respond(z)
    torch.testing.assert_close(spikes, expected)
    torch.testing.assert_close(voltages, ours_v)
    blocks = list(nets.mlp([3, 5, 5], classes=2))
    for block in blocks[:2]:
        block.activation = nets.Cell(snntorch.Leaky(beta=0.8), steps=4)
    rule = SignalPropagation(nn.Sequential(*blocks[:2], nets.MeanOverTime(), blocks[2]), Problem((3,), 2))
    before = [p.detach().clone() for p in rule.parameters()]
    rule.step(4 * sums(8, 3).float(), torch.arange(8) % 2)
    assert all(not torch.equal(p, old) for p, old in zip(rule.parameters(), before, strict=True))


def test_bad_neurons_are_refused() -> None:
    with pytest.raises(UsageError, match="without a time axis"):
        nets.LeakyIntegrateAndFire()(torch.rand(2, 3))
    with pytest.raises(UsageError, match="decay=2"):
        nets.LeakyIntegrateAndFire(decay=2.0)
    with pytest.raises(UsageError, match="rate=0"):
        nets.LeakyRate(nn.ReLU(), rate=0.0)
    with pytest.raises(UsageError, match="at least one hidden width"):
        nets.spiking([6])


def test_what_is_shown_is_pooled_as_the_output_is() -> None:
    net = nets.conv((1, 8, 8), [3, 4], classes=4, act="sign").double()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out, seen = nets.observe(net[0], x)
    assert out.shape == seen.shape
    torch.testing.assert_close(seen, net[0].pool(net[0].affine(x).clamp(-1, 1)))
    rule = SignalPropagation(net, Problem((1, 8, 8), 4))
    before = [p.detach().clone() for p in net.parameters()]
    rule.step(x, torch.arange(6) % 4)
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nets.rates([4, 3], steps=0),
        lambda: nets.rates([4, 3], steps=-1),
        lambda: nets.spiking([4, 3], steps=0),
        lambda: nets.Cell(nn.Identity(), steps=0),
    ],
)
def test_time_steps_are_whole_and_positive(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"steps=\S+ .*positive"):
        make()


def test_no_time_at_all_and_cells_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="of no time step at all"):
        nets.LeakyIntegrateAndFire()(torch.zeros(2, 0, 3))
    with pytest.raises(UsageError, match="Identity is not called as cell"):
        nets.Cell(nn.Identity(), steps=2)(torch.zeros(2, 3))
