"""BCM: a unit learns what excites it above a sliding threshold, and unlearns what excites it less.

Bienenstock, Cooper & Munro 1982 (J. Neuroscience 2:32), in the form of Intrator & Cooper 1992 (doi
10.1016/S0893-6080(05)80003-6). For a patch x, sums u = W x, and means over the patches of a batch:

    y = max(0, u),      dW_k = < y_k (y_k - theta_k) x >,      theta_k <- memory theta_k + (1 - memory) < y_k^2 >

Options of Jimenez Nimmo & Mondragón 2025 (arXiv 2501.17266): the cosine u / (||x|| ||w||) in the place of u; a
difference of Gaussians over places, each unit by itself (`lateral`); competition="hard": only the unit for which what
comes out is largest answers a patch, so that units select different ones; and dW divided by its largest entry
(`normalise`).

Departures:
1. The threshold begins at the first batch's < y^2 >, and moves once a batch, after the weights.
2. Cosine and lateral kernel are for learning: blocks answer with their own activation of W x (in the authors' code they
   answer with these, too).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.competition import Competitive, winners
from altprop.rules.hebbian.kernels import difference_of_gaussians, over_places
from altprop.rules.hebbian.patches import Layer, along, means, product
from altprop.rules.hebbian.similarity import cosine


class BCM(Competitive):
    """BCM (Bienenstock, Cooper & Munro 1982) for linear and convolutional layers, with a readout.

    Arguments:
        similarity: "dot" or "cosine": what a unit answers with while it learns.
        lateral: whether a difference of Gaussians over places follows; for convolutions.
        competition: "none", or "hard": only the unit with the largest answer to a patch keeps it.
        memory: of the threshold, from batch to batch; it must move faster than the weights do.
        normalise: whether a change is divided by its largest entry.
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

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        similarity: str = "dot",
        lateral: bool = False,
        competition: str = "hard",
        memory: float = 0.9,
        normalise: bool = True,
        settle: float = 0.75,
        **options: Any,
    ) -> None:
        if competition not in ("none", "hard") or not 0 <= memory < 1:
            raise UsageError(
                f'BCM(competition={competition!r}, memory={memory}): competition is "none" or "hard", and the memory '
                "at least 0 and below 1"
            )
        if similarity not in ("dot", "cosine"):
            raise UsageError(f'BCM(similarity={similarity!r}): choose "dot" or "cosine"')
        super().__init__(net, problem, settle=settle, **options)
        flat = [i for i in self.layers if not isinstance(nets.affine(net[i]), nn.Conv2d)]
        if lateral and flat:
            raise UsageError(
                f"BCM(lateral=True): the layer of block {flat[0]} is linear, so its units have no places next to one "
                "another; build a net of convolutions, or leave lateral off"
            )
        self.kind, self.lateral = similarity, lateral
        self.competition, self.memory, self.normalise = competition, memory, normalise
        for i in self.layers:
            self.register_buffer(f"thresholds_{i}", torch.full_like(self.wins(i), -1.0))

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        s = cosine(layer, x, u) if self.kind == "cosine" else u
        if self.lateral:
            s = over_places(difference_of_gaussians(), s)
        best = winners(s)
        y = s.clamp_min(0.0)
        if self.competition == "hard":
            y = torch.zeros_like(s).scatter_(1, best, y.gather(1, best))
        self.count(i, best)
        squares, thresholds = means(y.square()), self.get_buffer(f"thresholds_{i}")
        first = bool(thresholds[0] < 0)
        if first and not bool(squares.any()):
            raise UsageError(
                f"BCM: no unit of block {i} answers any input of the first batch, so all are dead and would stay so; "
                "start from other weights, or shift the inputs"
            )
        if first:
            thresholds.copy_(squares)
        change = product(layer, y * (y - along(thresholds, y)), x)
        thresholds.lerp_(squares, 1.0 - self.memory)
        return change.div_(change.abs().max().clamp_min(torch.finfo(u.dtype).tiny)) if self.normalise else change
