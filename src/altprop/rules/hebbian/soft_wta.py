"""Soft winner-take-all: units compete for each input, and winners learn what is not yet explained; no error signal.

Competition and triangle units: SoftHebb, Moraitis et al. 2022 (arXiv 2107.05747), Journé et al. 2023 (arXiv
2209.11883). Products instead of a (batch, units, inputs) tensor: FastHebb, Lagani et al. 2022 (arXiv 2207.03172).
For inputs x (N, D) without mean and of length 1, weights W (K, D), units in m columns:

    u = x W^T + b,    r = softmax(t u) within each column,    y = r max(0, u)
    dW_k = sum_n y_nk (x_n - sum_j y_nj w_j) / (s_k + mean s),    s_k = sum_n y_nk sum_j y_nj

Each block learns so from its own input, all in one pass, and answers with its ordinary output h. The readout is linear,
on z = max(0, (h - mean h) / std h)^p over the last block's units, and learns by cross-entropy from z alone.

Departures from the papers:
1. Units compete in m columns, and the winners of all columns explain the input together (Oja's subspace rule, with
   the softmax as a gate). With one column and a large t it is the papers' rule in Oja's form, dW = u (x - u w).
2. The step is divided by s, for each neuron, and not by the layer's largest change, which ties all neurons to the
   fastest. s_k is the k-th row sum of Y^T Y, so that a rate of 1 never overshoots, whatever the batch. The mean of s
   keeps neurons that hardly answered in a batch from following it. There is no factor |norm - 1|^p.
3. Logits are clamped so that no responsibility falls far below the cube root of the smallest normal number: denormals,
   which make products many times slower on CPUs, do not arise. The papers have no such bound.
4. The body's rate falls to zero at progress = `settle`, while the readout learns all the way; the papers train one
   after the other. Biases keep their initial values.
5. Each input loses its own mean and is scaled to length 1; there is no batch statistic, and no whitening.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, one_hot

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, OptimizerFactory, OptimizerSpec, Problem, Rule
from altprop.rules.hebbian.body import unfit
from altprop.rules.watch import check_units, check_weights

OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "blocks": partial(torch.optim.SGD, lr=1.0, fused=True),
    "head": partial(torch.optim.Adam, lr=2e-3, fused=True),
}


class SoftWTA(Rule):
    """Hebbian soft winner-take-all in columns, with a linear readout.

    For nets of linear blocks without an output block; blocks without parameters are passed through.

    Blocks that are frozen (`requires_grad` off) stay as they are: on a frozen net this rule is its own control, a
    readout on random features.

    Arguments:
        columns: m; each block has the largest number of columns up to this that divides its units.
        inverse_temperature: t of the competition; large values leave one winner a column.
        power: p of the readout's units.
        settle: the progress at which the body has stopped learning.
        optimizer: as in `Rule`; the blocks want SGD, with a rate of at most 1.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "head" (the readout).
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
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
        columns: int = 10,
        inverse_temperature: float = 20.0,
        power: float = 2.0,
        settle: float = 0.75,
        optimizer: OptimizerSpec = OPTIMIZERS,
        **options: Any,
    ) -> None:
        if columns < 1 or inverse_temperature <= 0 or power <= 0 or settle <= 0:
            raise UsageError(
                f"SoftWTA(columns={columns}, inverse_temperature={inverse_temperature}, power={power}, "
                f"settle={settle}): give at least one column, and numbers above 0"
            )
        super().__init__(net, problem, optimizer=optimizer, **options)
        self.columns = columns
        self.inverse_temperature = inverse_temperature
        self.power = power
        self.settle = settle
        weight = next(net.parameters())
        width = nets.shapes(net, self.problem.input_shape)[-1][0]
        self.head = nn.utils.skip_init(nn.Linear, width, self.problem.outputs, device=weight.device, dtype=weight.dtype)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.add_part("head", self.head)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its readout learns classes by cross-entropy; choose another rule for a regression"
        if any(isinstance(module, nn.Conv2d) for module in net.modules()):
            return "convolutional blocks are not supported yet; build the net with altprop.nets.mlp"
        if nets.output_layer(net) is not None:
            return "it brings its own readout, and an output block would learn features; build the net without classes"
        if not any(isinstance(nets.affine(block), nn.Linear) for block in net):
            return "it needs a linear block (build the net with altprop.nets.mlp and a hidden width)"
        for i, block in enumerate(net):
            if nets.affine(block) is None and any(True for _ in block.parameters()):
                return f"block {i} has parameters but is no linear block, and this rule knows no other"
        return unfit(net, problem)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Int[Tensor, "batch"] | None) -> Metrics:
        assert y is not None
        rate = 1.0 - self.progress / self.settle
        for i in range(len(self.net)):
            x = self.block(i, x, rate)
        return {"loss": self.read(triangle(x, self.power), y)}

    def block(self, i: int, x: Float[Tensor, "batch ..."], rate: float = 0.0) -> Float[Tensor, "batch ..."]:
        """What block i makes of its input; it learns from it on the way where the rate is above 0."""
        block = self.net[i]
        layer = nets.affine(block)
        if not isinstance(layer, nn.Linear):
            passed: Tensor = block(x)
            return passed
        check_weights(self, i, layer)
        x = centred(x)
        u = layer(x)
        h = nets.after(block, u)
        check_units(self, i, x, h)
        if rate > 0.0 and layer.weight.requires_grad:
            r = responsibilities(u, self.inverse_temperature, columns(u.shape[1], self.columns))
            # In place: h may be u itself, but r is ours.
            layer.weight.grad = change(x, r.mul_(u.clamp_min(0.0)), layer.weight).mul_(-rate)
            self.update(f"blocks.{i}")
        return h

    def read(self, z: Float[Tensor, "batch units"], y: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
        """One step of the readout; returns the cross-entropy."""
        logp = self.head(z).log_softmax(1)
        delta = logp.clamp_min(floor(z.dtype)).exp_().sub_(one_hot(y, self.problem.outputs)).div_(len(y))
        if self.head.weight.requires_grad:
            self.head.weight.grad, self.head.bias.grad = delta.T @ z, delta.sum(0)
            self.update("head")
        loss: Tensor = -logp.gather(1, y.unsqueeze(1)).mean()
        return loss

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        for i in range(len(self.net)):
            x = self.block(i, x)
        scores: Tensor = self.head(triangle(x, self.power))
        return scores


def centred(x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
    """Each row without its mean, at length 1."""
    return normalize(x - x.mean(1, keepdim=True))


def columns(units: int, most: int) -> int:
    """The largest number of equal columns, at most `most`."""
    return next(m for m in range(min(units, most), 0, -1) if units % m == 0)


def floor(dtype: torch.dtype) -> float:
    """The lowest logit below its row's largest: a third of the way (in logarithms) to the smallest normal number."""
    return float(torch.tensor(torch.finfo(dtype).tiny, dtype=torch.float64).log()) / 3.0


def responsibilities(u: Float[Tensor, "batch units"], t: float, m: int) -> Float[Tensor, "batch units"]:
    """r: softmax of t u within each of m columns, nowhere subnormal."""
    logits = u.unflatten(1, (m, -1)).mul(t)
    logits.sub_(logits.amax(2, keepdim=True)).clamp_min_(floor(u.dtype)).exp_()
    r: Tensor = logits.div_(logits.sum(2, keepdim=True)).flatten(1)
    return r


def change(
    x: Float[Tensor, "batch inputs"], y: Float[Tensor, "batch units"], w: Float[Tensor, "units inputs"]
) -> Float[Tensor, "units inputs"]:
    """dW in the FastHebb form: Y^T (X - Y W), each row divided by s_k + mean s. Overwrites y."""
    unexplained = torch.addmm(x, y, w, alpha=-1)
    s = y.sum(1) @ y
    shares = y.div_((s + s.mean()).clamp_min_(torch.finfo(y.dtype).eps))
    return shares.T @ unexplained


def triangle(h: Float[Tensor, "batch units"], power: float) -> Float[Tensor, "batch units"]:
    """max(0, (h - mean) / std)^power over each row's units."""
    return layer_norm(h, h.shape[1:]).relu_().pow_(power)
