"""Spike-coded nets: their inputs' spikes, their weights, and their inhibition."""

import pytest
import torch

from altprop import nets
from altprop.errors import UsageError


def test_intensities_become_evenly_spread_spikes() -> None:
    net = nets.spike_coded([4, 3], steps=8)
    spikes = net[0](torch.tensor([[0.0, 0.25, 0.5, 1.0]]))
    assert spikes[0].T.tolist() == [[0] * 8, [0, 0, 0, 1] * 2, [0, 1] * 4, [1] * 8]


def test_weights_are_positive_and_inhibition_balances_what_comes_in() -> None:
    net = nets.spike_coded([6, 50, 40], classes=3, steps=5)
    assert nets.shapes(net, (6,)) == [(5, 6), (5, 50), (5, 40), (40,), (3,)]
    for block in net[1:3]:
        weight = block.affine.weight.detach()
        assert float(weight.min()) >= 0 and float(weight.max()) <= 1
    drive = net[1].norm(net[1].affine(net[0](torch.rand(7, 6)))).detach()
    torch.testing.assert_close(drive.mean(2), torch.zeros(7, 5), rtol=0, atol=1e-5)
    assert 0.05 < float(net[:3](torch.rand(7, 6)).mean()) < 0.5


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one hidden width"):
        nets.spike_coded([6])
    with pytest.raises(UsageError, match="steps=0"):
        nets.spike_coded([6, 3], steps=0)
