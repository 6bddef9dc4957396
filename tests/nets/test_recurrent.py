"""Recurrent spiking blocks: against loops written out by hand, one step after another, and what they refuse."""

import pytest
import torch
from torch import Tensor

from altprop import nets
from altprop.errors import UsageError


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def block(**options: object) -> nets.RecurrentIntegrateAndFire:
    return nets.RecurrentIntegrateAndFire(3, 4, decay=0.8, threshold=0.7, **options).double()


def test_neuron_by_neuron() -> None:
    x, made = inputs(2, 6, 3), block()
    w, b, r = (p.detach() for p in (made.input.weight, made.input.bias, made.recurrent.weight))
    spikes = made(x)
    for row in range(2):
        v, z = [0.0] * 4, [0.0] * 4
        for t in range(6):
            drive = [float(w[j] @ x[row, t] + b[j]) + sum(float(r[j, k]) * z[k] for k in range(4)) for j in range(4)]
            v = [0.8 * v[j] + drive[j] - 0.7 * z[j] for j in range(4)]
            z = [float(u >= 0.7) for u in v]
            assert spikes[row, t].tolist() == z
    assert 0 < float(spikes.mean()) < 1


def test_one_step_after_another() -> None:
    x, made = inputs(2, 6, 3), block()
    state = made.initial(2)
    for t in range(6):
        state = made.one(x[:, t], state)
        assert torch.equal(state[1], made(x)[:, t])


def test_spikes_have_the_pseudo_derivative_where_it_is_asked_for() -> None:
    x = inputs(9, 1, 3)
    assert torch.equal(block()(x), block(derivative=True)(x))
    made = block(derivative=True, dampening=0.4)
    (found,) = torch.autograd.grad(made(x).sum(), made.input.bias)
    v = made.input(x)[:, 0].detach()
    slope = 0.4 / 0.7 * (1 - ((v - 0.7) / 0.7).abs()).clamp_min(0)
    torch.testing.assert_close(found, slope.sum(0))
    torch.testing.assert_close(made.slope(v), slope)
    assert 0 < int((slope > 0).sum()) < slope.numel()
    bare = block()
    assert not bare(x.requires_grad_()).requires_grad


def test_nets_of_held_inputs_rows_and_sequences() -> None:
    x = torch.rand(5, 6)
    held = nets.recurrent_spiking([6, 8, 7], classes=3, steps=4)
    assert nets.shapes(held, (6,)) == [(4, 6), (4, 8), (4, 7), (7,), (3,)]
    rows = nets.recurrent_spiking([6, 8], classes=3, steps=2, rows=True, readout=0.5)
    assert nets.shapes(rows, (6,)) == [(2, 3), (2, 8), (8,), (3,)]
    assert torch.equal(rows[0](x)[:, 1], x[:, 3:])
    sequences = nets.recurrent_spiking([6, 8], steps=None)
    assert sequences(torch.rand(5, 9, 6)).shape == (5, 8)
    z = rows[1](rows[0](x))
    torch.testing.assert_close(rows[2](z), torch.stack([0.5 * z[:, 0], 0.25 * z[:, 0] + 0.5 * z[:, 1]]).mean(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: block(dampening=0.0), "dampening=0.0 positive"),
        (lambda: nets.RecurrentIntegrateAndFire(3, 4, decay=1.5), "decay=1.5 must be in"),
        (lambda: block()(inputs(2, 3)), "hold a static input for some steps"),
        (lambda: nets.recurrent_spiking([4]), "at least one hidden width"),
        (lambda: nets.recurrent_spiking([4, 3], steps=0), "positive whole number of steps"),
        (lambda: nets.recurrent_spiking([4, 3], readout=1.0), "readout in"),
        (lambda: nets.recurrent_spiking([4, 3], steps=3, rows=True), "4 inputs cannot be cut into steps=3"),
    ],
)
def test_what_is_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(UsageError, match=words):
        make()
