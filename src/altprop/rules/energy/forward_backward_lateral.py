"""Forward, backward and lateral weights: layers that settle together and learn by Hebb's rule, with a linear readout.

Built from parts that are older: principal components by Hebb's rule (Sanger 1989, doi 10.1016/0893-6080(89)90044-0; Oja
1989, doi 10.1142/S0129065789000475), anti-Hebbian lateral inhibition (Foldiak 1990, doi 10.1007/BF02331346), and what
is predicted from above taken away (Rao & Ballard 1999, doi 10.1038/4580). Block l has n_l units with states s_l:

    x_l = s_{l-1} without its mean, at length sqrt(n_{l-1})
    h_l = W_l x_l + b_l + B_l s_{l+1} + L_l s_l,    s_l <- decay s_l + (1 - decay) f(h_l)

from the first block up, `sweeps` times; the first sweep, from zero, is a plain forward pass and does not decay. Then

    dW_l = <h_l x_l^T - h_l h_l^T W_l> / n_{l-1}    Oja's subspace rule; with h h^T below its diagonal only, Sanger's
    dB_l = -<h_l s_{l+1}^T> / n_{l+1} - B_l         anti-Hebbian, with a leak: what is above is predicted away
    dL_l = -<h_l s_l^T> / n_l - L_l                 likewise, without the diagonal: units become different

averaged over the batch. The readout is linear on s of the last block and learns by the delta rule, (softmax - onehot)
s^T. No error reaches the blocks.

This finishes a sketch that has no output. Departures from it:
1. A readout on top; the sketch ends in the last hidden layer, and cannot classify.
2. A state belongs to a sample, and each begins at zero; the sketch averages states over the batch and hands that on.
3. Anti-Hebbian weights leak, and units do not inhibit themselves: neither grows without end.
4. Inputs of blocks lose their mean and have one length, so that no rate overshoots. Biases stay as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule
from altprop.rules.energy.linear_blocks import activation_of, fill_gradients, foreign_block, layer_of
from altprop.rules.losses import output_error

OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "blocks": partial(torch.optim.SGD, lr=0.1, fused=True),
    "backward": partial(torch.optim.SGD, lr=0.01, fused=True),
    "lateral": partial(torch.optim.SGD, lr=0.01, fused=True),
    "head": partial(torch.optim.Adam, lr=2e-3, fused=True),
}


@dataclass(frozen=True)
class Settled:
    """Of each block what went in last (x_l), what it was driven by (h_l), and its state (s_l); the states' change."""

    x: list[Tensor]
    h: list[Tensor]
    s: list[Tensor]
    change: Float[Tensor, ""]


class ForwardBackwardLateral(Rule):
    """Hebbian forward weights, anti-Hebbian backward and lateral ones, and a linear readout.

    For nets of linear blocks without an output block.

    Arguments:
        sweeps: how often all states are computed; with 1 nothing comes from above or from beside.
        decay: how much of a state stays in a sweep, from 0 (none) to below 1.
        ordered: Sanger's rule (units become the principal components in order) instead of Oja's (their space).
        The others are those of `Rule`; the parts are "blocks.0", ..., "backward.0", ... (into each block but the last),
        "lateral.0", ... and "head" (the readout). All but the head want SGD, with a rate below 1.

    Metrics: "loss"; "residual", the length of the states' change in the last sweep (means over the batch).
    """

    claims = Claims(
        later_blocks="prediction",
        forward_lock=True,
        update_lock=True,
        order="forward",
        differentiable=True,  # no derivative is taken, but only linear blocks are known, and others are refused
        memory="grows",
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
        sweeps: int = 3,
        decay: float = 0.1,
        ordered: bool = False,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        if sweeps < 1 or not 0.0 <= decay < 1.0:
            raise UsageError(
                f"ForwardBackwardLateral(sweeps={sweeps}, decay={decay}): give at least one sweep, and a decay from 0 "
                "to below 1"
            )
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.sweeps, self.decay, self.ordered = sweeps, decay, ordered
        widths = [layer_of(block).out_features for block in net]
        self.backward_layers = nn.ModuleList(self._empty(above, n) for n, above in pairwise(widths))
        self.lateral_layers = nn.ModuleList(self._empty(n, n) for n in widths)
        self.head = self._empty(widths[-1], self.problem.outputs, bias=True)
        for word, layers in (("backward", self.backward_layers), ("lateral", self.lateral_layers)):
            for i, layer in enumerate(layers):
                self.add_part(f"{word}.{i}", layer)
        self.add_part("head", self.head)

    def _empty(self, inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
        """A linear layer of zeros, where the net is."""
        layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        return layer.to(next(self.net.parameters()))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its readout learns classes; choose another rule for a regression"
        if nets.output_layer(net) is not None:
            return "it brings its own readout, and an output block would learn features; build the net without classes"
        return foreign_block(net)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch inputs"], y: Int[Tensor, "batch"] | None) -> Metrics:
        assert y is not None
        now = self.settle(x)
        for i, block in enumerate(self.net):
            if f"blocks.{i}" in self.optimizers and layer_of(block).weight.requires_grad:
                layer_of(block).weight.grad = -self.hebbian(now.x[i], now.h[i], layer_of(block).weight)
                self.update(f"blocks.{i}")
        for i, layer in enumerate(self.backward_layers):
            self._unlearn(f"backward.{i}", layer, now.h[i], now.s[i + 1])
        for i, layer in enumerate(self.lateral_layers):
            self._unlearn(f"lateral.{i}", layer, now.h[i], now.s[i])
        loss, e = output_error(self.head(now.s[-1]), y, self.problem.kind)
        fill_gradients(self.head, e, now.s[-1])
        self.update("head")
        return {"loss": loss, "residual": now.change}

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch classes"]:
        scores: Tensor = self.head(self.settle(x).s[-1])
        return scores

    def settle(self, x: Float[Tensor, "batch inputs"]) -> Settled:
        """All states, after so many sweeps from the first block up."""
        blocks, inputs, driven, states = list(self.net), [x] * len(self.net), [x] * len(self.net), [x] * len(self.net)
        change = x.new_zeros(())
        for sweep in range(self.sweeps):
            squares = x.new_zeros(len(x))
            for i, block in enumerate(blocks):
                inputs[i] = centred(x if i == 0 else states[i - 1])
                h, f = layer_of(block)(inputs[i]), activation_of(block)
                if sweep > 0:
                    h = h + self.lateral_layers[i](states[i])
                    if i + 1 < len(blocks):
                        h = h + self.backward_layers[i](states[i + 1])
                s = h if f is None else f(h)
                if sweep > 0:
                    s = torch.lerp(s, states[i], self.decay)
                    squares = squares + (s - states[i]).square().sum(1)
                driven[i], states[i] = h, s
            change = squares.sqrt().mean()
        return Settled(inputs, driven, states, change)

    def hebbian(
        self, x: Float[Tensor, "batch inputs"], h: Float[Tensor, "batch units"], w: Float[Tensor, "units inputs"]
    ) -> Float[Tensor, "units inputs"]:
        """dW of Oja's or Sanger's rule."""
        gram = h.T @ h
        return (h.T @ x - (gram.tril() if self.ordered else gram) @ w) / x.numel()

    def _unlearn(self, part: str, layer: nn.Module, h: Tensor, source: Tensor) -> None:
        """The layer's anti-Hebbian step, from the source to h."""
        weight = layer_of(layer).weight
        change = h.T @ source / source.numel() + weight
        if part.startswith("lateral"):
            change.fill_diagonal_(0.0)
        weight.grad = change
        self.update(part)


def centred(x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
    """Each row without its mean, at length sqrt(inputs)."""
    return nn.functional.layer_norm(x, x.shape[1:], eps=1e-8)
