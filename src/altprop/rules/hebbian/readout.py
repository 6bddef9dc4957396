"""Supervised readouts of features z that something else has learnt: one layer, scores = W z + b.

    "softmax"     the gradient of the cross-entropy, dW = (onehot(y) - softmax(s)) z^T
    "delta"       the delta rule (Widrow & Hoff 1960), dW = (onehot(y) - s) z^T
    "class-mean"  each class's unit comes to the mean of its features (teacher's competition, Lagani et al. 2022,
                  arXiv 2205.08264), dW_c = <z - W_c> over the class; scores are -||z - W_c||^2 / 2
    "ridge"       the closed form W = <t z^T> (<z z^T> + penalty I)^-1 of the targets t = onehot(y), on features without
                  their mean: no learning rule, the yardstick

"softmax" and "delta" step by the optimizer of the part "head"; the other two keep statistics. While features still
change, statistics forget: each batch counts `memory` times as much as the one after it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from altprop.errors import UsageError
from altprop.rule import Rule

READOUTS = ("softmax", "delta", "class-mean", "ridge")


class Readout(nn.Module):
    """The layer, its statistics, and how it learns; it belongs to a rule, which writes its parameters.

    Arguments:
        rule: its owner, for `update("head")` and `assign`.
        width: features.
        kind: one of READOUTS.
        penalty: of the ridge, in units of the features' mean variance.
        memory: how much statistics keep from batch to batch while features change.
    """

    moments: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self, width: int, outputs: int, kind: str, like: Tensor, penalty: float = 1e-3, memory: float = 0.99
    ) -> None:
        super().__init__()
        if kind not in READOUTS or penalty <= 0 or not 0 <= memory < 1:
            raise UsageError(
                f"readout={kind!r}, penalty={penalty}, memory={memory}: choose one of {', '.join(READOUTS)}, a "
                "positive penalty, and a memory at least 0 and below 1"
            )
        self.kind, self.penalty, self.memory = kind, penalty, memory
        place: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        self.layer = nn.utils.skip_init(nn.Linear, width, outputs, **place)
        for parameter in self.layer.parameters():
            nn.init.zeros_(parameter)
        if kind in ("class-mean", "ridge"):
            self.layer.requires_grad_(False)
            self.register_buffer("sums", torch.zeros(outputs, width, **place))
            self.register_buffer("counts", torch.zeros(outputs, **place))
        if kind == "ridge":
            self.register_buffer("moments", torch.zeros(width, width, **place))

    def forward(self, z: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        if self.kind == "ridge" and bool(self.counts.any()) and not bool(self.layer.bias.any()):
            raise UsageError(
                "the ridge has gathered its statistics and is not solved yet: call rule.finish() before you predict"
            )
        scores: Tensor = self.layer(z)
        return scores

    @torch.no_grad()
    def learn(
        self, rule: Rule, z: Float[Tensor, "batch features"], y: Int[Tensor, "batch"], changing: bool
    ) -> Float[Tensor, ""]:
        """One batch; returns the cross-entropy of the scores before it."""
        scores = self.layer(z)
        loss = self._loss(scores, y)
        target = one_hot(y, self.layer.out_features).to(z.dtype)
        if self.kind in ("class-mean", "ridge"):
            self._gather(z, target, self.memory if changing else 1.0)
            if self.kind == "class-mean":
                self.solve(rule)
        elif self.layer.weight.requires_grad:
            e = (scores if self.kind == "delta" else scores.softmax(1)).sub_(target).div_(len(z))
            self.layer.weight.grad, self.layer.bias.grad = e.T @ z, e.sum(0)
            rule.update("head")
        return loss

    def _loss(self, scores: Tensor, y: Tensor) -> Float[Tensor, ""]:
        if self.kind != "class-mean":
            return cross_entropy(scores, y)
        guess = scores.new_tensor(float(self.layer.out_features)).log()  # what a class that was never seen costs
        return cross_entropy(scores, y, reduction="none").where(self.counts[y] > 0, guess).mean()

    def _gather(self, z: Tensor, target: Tensor, keep: float) -> None:
        self.sums.mul_(keep).addmm_(target.T, z)
        self.counts.mul_(keep).add_(target.sum(0))
        if self.kind == "ridge":
            self.moments.mul_(keep).addmm_(z.T, z)

    @torch.no_grad()
    def solve(self, rule: Rule) -> None:
        """Write the layer from the statistics; `Rule.finish` calls it, as a ridge costs too much to be solved a step.
        Nothing to do for the other kinds."""
        if self.kind not in ("class-mean", "ridge") or not bool(self.counts.any()):
            return
        if self.kind == "class-mean":
            weight = self.sums / self.counts.clamp_min(torch.finfo(self.counts.dtype).tiny).unsqueeze(1)
            bias = -0.5 * weight.square().sum(1)
            # A class that was never seen must not win by standing at zero.
            bias = bias.where(self.counts > 0, torch.full_like(bias, -torch.finfo(bias.dtype).max / 4))
        else:
            weight, bias = self._ridge()
        rule.assign(self.layer.weight, weight)
        rule.assign(self.layer.bias, bias)

    def _ridge(self) -> tuple[Tensor, Tensor]:
        total = self.counts.sum()
        mean, share = self.sums.sum(0) / total, self.counts / total
        covariance = (self.moments / total).addr_(mean, mean, alpha=-1)
        size = covariance.diagonal().mean().clamp_min(torch.finfo(mean.dtype).tiny)
        covariance.diagonal().add_(self.penalty * size)
        cross = (self.sums / total).addr_(share, mean, alpha=-1)
        # In double precision: features are nearly collinear, and the best penalties small.
        weight = torch.linalg.solve(covariance.double(), cross.T.double()).T.to(mean.dtype)
        return weight, share - weight @ mean
