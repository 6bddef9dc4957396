"""What Hebbian rules share: a body of blocks that learn without labels, each from its own input, and a readout.

All blocks learn in one pass. A block gives what the net's block gives; a rule says what its weight changes by.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule, passage
from altprop.rules.hebbian.patches import Layer
from altprop.rules.hebbian.readout import Readout
from altprop.rules.watch import check_units, check_weights

OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "blocks": partial(torch.optim.SGD, lr=0.1, fused=True),
    "head": partial(torch.optim.Adam, lr=2e-3, fused=True),
}


class Hebbian(Rule):
    """Base of rules whose body learns without labels; a rule writes `change`.

    For nets of linear and convolutional blocks without an output block; blocks without parameters are passed through.
    Blocks that are frozen (`requires_grad` off) stay as they are: a readout on random features is the control.

    Arguments:
        readout: "softmax", "delta", "class-mean" or "ridge" (see `Readout`); None leaves the body alone, which then
            learns by `absorb`, and answers with its features.
        settle: the progress at which the body has stopped learning.
        decay: whether the body's rate falls to zero on the way, in a line.
        wait: whether the readout begins when the body has stopped (at once, where all blocks are frozen).
        penalty: of the ridge.
        optimizer: as in `Rule`; the parts are "blocks.0", "blocks.1", ... and "head".
    """

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        readout: str | None = "softmax",
        settle: float = 0.5,
        decay: bool = True,
        wait: bool = False,
        penalty: float = 1e-3,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        if settle <= 0:
            raise UsageError(f"{type(self).__name__}(settle={settle}): it must be above 0")
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.settle, self.decay, self.wait = settle, decay, wait
        self.head: Readout | None = None
        if readout is not None:
            width = row_of(net, self.problem)
            self.head = Readout(width, self.problem.outputs, readout, next(net.parameters()), penalty)
            self.add_part("head", self.head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its readout learns classes; choose another rule for a regression"
        if nets.output_layer(net) is not None:
            return "it brings its own readout, and an output block would learn features; build the net without classes"
        if not any(isinstance(nets.affine(block), Layer) for block in net):
            return "it needs a linear or convolutional block (build the net with altprop.nets.mlp and a hidden width)"
        for i, block in enumerate(net):
            layer = nets.affine(block)
            if not isinstance(layer, Layer) and any(True for _ in block.parameters()):
                return f"block {i} has parameters but is no linear or convolutional block, and this rule knows no other"
            if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or isinstance(layer.padding, str)):
                return f"the convolution of block {i} has groups, or a padding in words; use groups=1 and numbers"
        return unfit(net, problem)

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        """What the weight of block i's layer changes by, at a rate of 1, from its input x and u = W x + b.

        Biases stay as they are (0 in the nets of this library). u and x must not be written.
        """
        raise TypeError(f"{type(self).__name__} has no change(i, layer, x, u): every Hebbian rule writes its own")

    def features(self, h: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """What the readout sees of the last block's output."""
        return h

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Int[Tensor, "batch"] | None) -> Metrics:
        assert y is not None
        if self.head is None:
            raise UsageError(f"{type(self).__name__}(readout=None) has no readout to teach; call absorb(x)")
        h = self.absorb(x)
        changing = self.rate > 0.0
        if self.wait and changing and any(part.startswith("blocks") for part in self.optimizers):
            return {"loss": h.new_zeros(())}
        return {"loss": self.head.learn(self, self.features(h), y, changing=changing and not self.wait)}

    @property
    def rate(self) -> float:
        """The factor of the body's learning rates now."""
        left = max(0.0, 1.0 - self.progress / self.settle)
        return left if self.decay else float(left > 0.0)

    @torch.no_grad()
    def absorb(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Let the body learn from a batch; what its last block gave of it, with the weights before."""
        self.net.train(self.rate > 0.0)  # the statistics of a batch normalisation stop with the body
        for i, block in enumerate(self.net):
            x = self._pass(i, block, x, self.rate)
        return x

    def _pass(self, i: int, block: nn.Module, x: Float[Tensor, "batch ..."], rate: float) -> Float[Tensor, "batch ..."]:
        layer = nets.affine(block)
        if not isinstance(layer, Layer):
            passed: Tensor = block(x)
            return passed
        check_weights(self, i, layer)
        u = layer(x)
        h = nets.after(block, u)
        if rate > 0.0 and self.learns(i, layer):
            self.adapt(i, layer, x, u, rate)
        check_units(self, i, x, h)
        return h

    def learns(self, i: int, layer: Layer) -> bool:
        """Whether block i does; the weights of its layer may be frozen, and its bias not."""
        return f"blocks.{i}" in self.optimizers and layer.weight.requires_grad

    def adapt(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch ..."], rate: float
    ) -> None:
        """Block i learns, at a share `rate` of its optimizer's rate."""
        layer.weight.grad = self.change(i, layer, x, u).mul_(-rate)
        self.update(f"blocks.{i}")

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        features = self.features(self.net(x))
        scores: Tensor = features if self.head is None else self.head(features)
        return scores

    def finish(self) -> None:
        if self.head is not None:
            self.head.solve(self)


def row_of(net: nn.Sequential, problem: Problem) -> int:
    """How many features the net gives for a sample; raises UsageError where it does not give a row."""
    shape = nets.shapes(net, problem.input_shape)[-1]
    if len(shape) != 1:
        raise UsageError(
            f"the net's last block gives {shape} for a sample, and a readout needs a row; end the net in nn.Flatten()"
        )
    return shape[0]


def unfit(net: nn.Sequential, problem: Problem) -> str | None:
    """Why samples do not go through the net, or meet a linear layer as something else than rows, in words."""
    if None in problem.input_shape:
        return None
    sizes = passage(net, problem)
    if isinstance(sizes, str):
        return sizes
    for i, (block, size) in enumerate(zip(net, sizes, strict=False)):
        if isinstance(nets.affine(block), nn.Linear) and len(size) != 1:
            return (
                f"the linear layer of block {i} sees {size} for a sample, and this rule learns from rows: no time steps"
            )
    return None
