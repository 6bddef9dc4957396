"""How large a state rate may be: plain relaxation is stable below 2 / the largest curvature of the energy."""

import torch
from jaxtyping import Float
from torch import Tensor

from altprop.rules.energy.chain import Chain, Energy, at, squared_size
from altprop.rules.energy.prediction import each, predict


@torch.no_grad()
def stable_rate(chain: Chain, energy: Energy, iterations: int = 30) -> float:
    """2 / the largest eigenvalue of d^2E/dx^2 of any sample, at the chain's states, by the power method."""
    states = [p.x.detach() for p in chain.predictions[1:]]
    generator = torch.Generator().manual_seed(0)
    v = [torch.randn(s.shape, generator=generator).to(s) for s in states]
    small = torch.finfo(states[0].dtype).eps ** (1 / 3)
    largest = torch.zeros(len(states[0]))
    for _ in range(iterations):
        length = squared_size(v).sqrt()
        v = [part / each(length, part).clamp_min(1e-30) for part in v]
        up, down = (
            _slopes(chain, energy, [s + sign * part for s, part in zip(states, v, strict=True)])
            for sign in (small, -small)
        )
        v = [(a - b) / (2 * small) for a, b in zip(up, down, strict=True)]
        largest = squared_size(v).sqrt()
    return float(2 / largest.max())


def _slopes(chain: Chain, energy: Energy, states: list[Float[Tensor, "batch ..."]]) -> list[Tensor]:
    """dE/dx of every hidden state."""
    moved = [predict(p.block, s) for p, s in zip(chain.predictions[1:], states, strict=True)]
    there = at(chain.predictions[0], moved, energy)
    return [-p.pull_back(there.errors[i + 1], there.errors[i]) for i, p in enumerate(moved)]  # type: ignore[arg-type]
