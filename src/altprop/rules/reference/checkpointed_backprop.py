"""Backpropagation with activation checkpointing: the same gradients in less memory, for a second forward pass.

Chen, Xu, Zhang & Guestrin 2016 (arXiv 1604.06174). The L blocks are cut into segments. The forward pass keeps what
enters each segment and nothing inside it; the backward pass computes a segment again when it comes to it:

    peak memory: inputs of all segments + activities of one segment,    least with about sqrt(L) segments

The control of claims about memory: what backpropagation itself can do with less.

Departures from the paper:
1. Segments have equally many blocks (within one), and are not planned by what each block gives.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import losses, output_missing


class CheckpointedBackprop(Rule):
    """Backpropagation that computes activities again instead of keeping them (Chen et al. 2016).

    Its gradients are backpropagation's, bit for bit; random numbers (dropout) are drawn alike both times.

    Arguments:
        segments: how many; left out, the square root of the number of blocks, rounded up.
        The others are those of `Rule`.
    """

    claims = Claims(
        later_blocks="all",
        forward_lock=True,
        update_lock=True,
        order="backward",
        differentiable=True,
        memory="grows",
        training_only=False,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )
    ties = True

    def __init__(
        self, net: nn.Sequential, problem: Problem | None = None, *, segments: int | None = None, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        if segments is not None and not 1 <= segments <= len(net):
            raise UsageError(
                f"CheckpointedBackprop: segments={segments}; the net has {len(net)} blocks, take from 1 to {len(net)}"
            )
        count = segments if segments is not None else math.ceil(math.sqrt(len(net)))
        ends = [len(net) * k // count for k in range(count + 1)]
        self.ranges = [range(start, end) for start, end in pairwise(ends)]

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if any(getattr(module, "track_running_stats", False) for module in net.modules()):
            return (
                "it computes blocks twice, and running statistics would count every batch twice; build the norm with "
                "track_running_stats=False, or train with Backprop"
            )
        return output_missing(net, problem)

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        h = x
        for segment in self.ranges[:-1]:
            h = checkpoint(self.through, segment, h, use_reentrant=False)
        # The last segment would be computed again at once.
        loss = losses(self.through(self.ranges[-1], h), y, self.problem.kind).mean()
        loss.backward()
        for part in reversed(self.optimizers):
            self.update(part)
        return {"loss": loss.detach()}

    def through(self, segment: range, h: Tensor) -> Tensor:
        for i in segment:
            h = self.net[i](h)
        return h
