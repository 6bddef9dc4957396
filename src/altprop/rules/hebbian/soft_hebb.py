"""SoftHebb: units compete by a softmax for each patch, and each steps as far as its weights are from length 1.

Moraitis et al. 2022 (Neuromorphic Computing and Engineering, arXiv 2107.05747), deep: Journé et al. 2023 (ICLR, arXiv
2209.11883). For a patch x, sums u = W x, r = softmax(t u) over the block's units, means over all patches of a batch:

    "soft"    y = r
    "signed"  y = r where u is largest, -r elsewhere          (the authors' "soft Krotov", in their deep nets)
    "hard"    y = 1 where u is largest, 0 elsewhere
    dW_k = <y_k (x - u_k w_k)>,      dW <- dW / max |dW|,      W_k <- W_k + eta | ||w_k|| - 1 |^p dW_k

Blocks learn one after another on each batch, all in one pass, without labels. A linear readout sees the last block's
output; see `altprop.nets.soft_hebb` for the authors' nets, with triangles and a batch normalisation before each block,
and `SoftHebb.preset` for their settings.

Departures from the papers:
1. Responsibilities are clamped, so that none is denormal (see `competition`). Units have no bias.
2. normalise="unit" divides each unit's step by its own largest change. The layer's ties all units to the fastest one,
   so that convergence slows with their number.
3. The 1e-10 that the authors add to the rate is left out: at length 1 a unit stands still.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.soft_hebb import soft_hebb
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.competition import Competitive, each, responsibilities, winners
from altprop.rules.hebbian.patches import Layer, means, product, scaled
from altprop.rules.hebbian.soft_hebb_presets import PRESETS


class SoftHebb(Competitive):
    """SoftHebb (Moraitis et al. 2022; Journé et al. 2023) for linear and convolutional layers, with a readout.

    Arguments:
        competition: "signed", "soft" or "hard".
        inverse_temperature: t, one number for all blocks or one for each that has a layer.
        power: p of the rate.
        normalise: "layer" (the authors') or "unit": what a step is divided by the largest change of.
        The others are those of `Hebbian`; the parts are "blocks.0", "blocks.1", ... and "head".
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )
    settles = 2.0

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        competition: str = "signed",
        inverse_temperature: float | Sequence[float] = 1.0,
        power: float = 0.5,
        normalise: str = "layer",
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        if competition not in ("signed", "soft", "hard") or normalise not in ("layer", "unit") or power < 0:
            raise UsageError(
                f"SoftHebb(competition={competition!r}, normalise={normalise!r}, power={power}): competition is "
                '"signed", "soft" or "hard", normalise "layer" or "unit", and power at least 0'
            )
        super().__init__(net, problem, settle=settle, **options)
        self.competition, self.power, self.normalise = competition, power, normalise
        self.inverse_temperature = each("SoftHebb: inverse_temperature", inverse_temperature, self.layers)

    @classmethod
    def preset(
        cls,
        name: str,
        problem: Problem,
        *,
        width: float = 1.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> "SoftHebb":
        """The authors' net for images of the problem's shape, and the rule on it with their settings.

        Arguments:
            name: "cifar", "cifar-1", "cifar-2" (of one and two convolutions), "cifar-hard" (where the winner takes
                all), "stl", "stl-4" or "imagenet".
            width: how many times the authors' channels; their growth by 4 a block stays.
            generator: of the net's weights and of the rule.
            options: of the rule, in the place of the authors'.

        The authors learn from batches of 10 (STL: 32), one epoch, and then teach a linear readout by Adam.
        """
        if name not in PRESETS:
            raise UsageError(f"SoftHebb.preset({name!r}): choose one of {', '.join(PRESETS)}")
        if width <= 0 or None in problem.input_shape:
            raise UsageError(
                f"SoftHebb.preset(width={width}): give a width above 0, and a problem with the images' height and width"
            )
        own, shape = PRESETS[name], [int(n or 0) for n in problem.input_shape]
        channels = [max(1, round(width * n)) for n in own.channels]
        how: dict[str, Any] = {"kernels": own.kernels, "powers": own.powers, "pools": own.pools}
        net = soft_hebb(shape, channels, generator=generator, **how)
        rates = {f"blocks.{2 * i + 1}": partial(torch.optim.SGD, lr=rate) for i, rate in enumerate(own.rates)}
        settings = {
            "inverse_temperature": own.inverse_temperature,
            "power": own.power,
            "competition": own.competition,
            "optimizer": {**rates, "head": partial(torch.optim.Adam, lr=1e-3)},
        }
        return cls(net, problem, generator=generator, **{**settings, **options})

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        y = self.activities(i, u)
        change = product(layer, y, x).sub_(scaled(means(y * u), layer.weight))
        sizes = change.flatten(1).abs().amax(1)
        if self.normalise == "layer":
            sizes = sizes.amax().expand_as(sizes)
        rates = (layer.weight.flatten(1).norm(dim=1) - 1.0).abs_().pow_(self.power)
        change = scaled(1.0 / sizes.clamp_min(torch.finfo(u.dtype).tiny), change)  # units that won nothing stay
        return scaled(rates, change)

    def activities(self, i: int, u: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
        """y of block i; counts its winners on the way."""
        best = winners(u)
        self.count(i, best)
        if self.competition == "hard":
            return torch.zeros_like(u).scatter_(1, best, 1.0)
        r = responsibilities(u, self.inverse_temperature[i])
        return r if self.competition == "soft" else r.neg().scatter_(1, best, r.gather(1, best))
