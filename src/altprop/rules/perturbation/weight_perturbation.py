"""Weight perturbation: change all weights a little at random, see what it does to the loss, and go back or beyond.

Jabri & Flower 1992 (doi 10.1109/72.105429), one weight at a time; Cauwenberghs 1993 (NeurIPS 5, "A fast stochastic
error-descent algorithm"), all at once; Spall 1992 (doi 10.1109/9.119632), both ways: SPSA. With all parameters w of the
net and the mean loss L of the batch, K = `directions` times:

    v = ±1 a parameter,    d = (L(w + sigma v) - L(w)) / sigma                      dw = mean over directions of d v
    `antithetic`:          d = (L(w + sigma v) - L(w - sigma v)) / (2 sigma)

As sigma falls, d goes to the slope of the loss along v, and the mean of dw over the signs to the gradient: like sigma,
or its square if antithetic. No derivative is taken, and nothing is known of the net but its loss: blocks may be of any
kind.

Departures from the papers:
1. dw goes to an optimizer of one's choice; gains that fall as in SPSA's theory are a schedule's matter.
2. Directions are drawn twice, to try them and to take them, and never kept: a step needs little more memory than its
   predictions.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import losses, scores_missing
from altprop.rules.perturbation.probes import Probes
from altprop.rules.perturbation.signs import weight_signs


class WeightPerturbation(Rule):
    """Weight perturbation, also known as SPSA, with finite differences of the loss, for blocks of any kind.

    Arguments:
        sigma: the size of the perturbations.
        directions: K, how many are tried in a step.
        antithetic: whether each direction is tried both ways.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        sigma: float = 1e-2,
        directions: int = 1,
        antithetic: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(net, problem, **options)
        self.probes = Probes(sigma, directions, antithetic)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return scores_missing(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        start = self.generator.get_state()
        tried = [x] * self.probes.tried
        for block in self.net:
            tried = self._through(block, tried)
        found = torch.stack([losses(scores, y, self.problem.kind).mean() for scores in tried])
        d = self.probes.slopes(found) / self.probes.directions
        self.generator.set_state(start)  # the same directions again, as they were drawn
        for i, block in enumerate(self.net):
            for slope in d:
                for name, v in weight_signs(block, self.generator).items():
                    p = block.get_parameter(name)
                    p.grad = v.mul_(slope) if p.grad is None else p.grad.add_(v.mul_(slope))
            if f"blocks.{i}" in self.optimizers:
                self.update(f"blocks.{i}")
        return {"loss": self.probes.middle(found)}

    def _through(self, block: nn.Module, tried: list[Tensor]) -> list[Tensor]:
        """Everything that is tried, through one block; each direction is drawn, used and dropped."""
        there, back = self.probes.steps(tried)
        if not self.probes.antithetic:
            back = [block(back[0])]
        for k in range(self.probes.directions):
            v = weight_signs(block, self.generator)
            there[k] = moved(block, v, self.probes.sigma, there[k])
            if self.probes.antithetic:
                back[k] = moved(block, v, -self.probes.sigma, back[k])
        return there + back if self.probes.antithetic else back + there


def moved(
    block: nn.Module, v: dict[str, Tensor], by: float, h: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """The block's output with its parameters moved along v; they themselves stay where they are."""
    out: Tensor = functional_call(block, {n: block.get_parameter(n).add(v[n], alpha=by) for n in v}, (h,))
    return out
