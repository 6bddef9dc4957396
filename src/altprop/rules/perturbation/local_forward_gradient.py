"""Local forward gradient: every block learns from its own loss, by the slope in a random direction of its activities.

Ren, Kornblith, Liao & Hinton 2023 (arXiv 2210.03310), LG-FG-A. With blocks h_l = F_l(a_l), a_l = W_l h_{l-1} + b_l, a
linear head P_l on each, and the units of a block shared out among G groups; for each sample:

    s_l = P_l h_l,    L_l = CE(s_l, y),    e_l = dL_l/ds_l = softmax(s_l) - onehot(y)
    u_l = ±1 a unit, 0 where a ReLU is at rest,    t_l = (dF_l/da_l) u_l           forward, inside the block
    d_lg = e_l . P_lg t_lg                          the slope of L_l where only group g is pushed; P_lg are its columns
    dW_lg = mean over samples of d_lg u_lg h_{l-1}^T,    dP_l = mean over samples of e_l h_l^T

In the mean over the signs dW_l is the gradient of L_l. Each group's update feels the pushes of its own group only, so
its variance falls with the size of a group. No derivative leaves a block, and none is taken backward.

Departures from the paper:
1. The nets are ours, not mixers of patches: one loss a block and group, none a patch of an image, and no normalisation
   but the net's own. Images are flattened for the head, never pooled.
2. All groups share one head, whose scores are made of all of them. (In the paper each has a head of its own on all of
   them, and stops the gradient of the others.)
3. Heads learn by their exact gradient, e_l h_l^T, a delta rule. There is no output block: the last head predicts.
4. Directions are random signs and not normal: the same mean, less variance, a cheaper draw.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.losses import output_error
from altprop.rules.perturbation.affine import correlate, directions, layer_of, layers_missing, tapped, units_of
from altprop.rules.perturbation.duals import NO_TANGENT, dual_level, make_dual, unpack_dual


class LocalForwardGradient(Rule):
    """Activity-perturbed forward gradients of local losses (Ren et al. 2023), without an output block.

    Arguments:
        groups: G, of equally many units (channels) each; it divides the units of every block that learns.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "heads.0", "heads.1", ...
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

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, *, groups: int = 1, **options: Any) -> None:
        super().__init__(net, problem, **options)
        self.groups = groups
        self.heads = nn.ModuleDict()
        for i, shape in enumerate(nets.shapes(net, self.problem.input_shape)):
            weight = next(net[i].parameters(), None)
            if weight is not None:
                self._check_groups(i, shape)
                head = nets.linear(math.prod(shape), self.problem.outputs, "lecun", self.generator, bias=False)
                self.heads[str(i)] = head.to(weight)
                self.add_part(f"heads.{i}", head)

    def _check_groups(self, i: int, shape: tuple[int, ...]) -> None:
        """shape: of a sample's output of block i."""
        block = self.net[i]
        if f"blocks.{i}" not in self.optimizers or self.groups == 1:
            return
        units = units_of(layer_of(block))
        if self.groups < 1 or units % self.groups:
            raise UsageError(
                f"groups={self.groups}: the {units} units of block {i} cannot be shared out in groups of equal size; "
                "take a positive divisor of every block's units"
            )
        if len(shape) > (1 if isinstance(layer_of(block), nn.Linear) else 3):
            raise UsageError(
                f"groups={self.groups}: block {i} gives {shape}, with a time axis, and groups are of units only; take "
                "groups=1"
            )
        if isinstance(block, nets.Block) and block.norm is not None:
            raise UsageError(
                f"groups={self.groups}: the normalisation of block {i} mixes the units of all groups, and a group's "
                "slope would miss what it does to the others; build the net without it, or take groups=1"
            )

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if nets.output_layer(net) is not None:
            return "it brings a head for every block, the last one too; build the net without classes"
        if not any(True for _ in net.parameters()):
            return "it needs a block with parameters (build the net with altprop.nets and a hidden width)"
        return layers_missing(net)

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the last block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        h, loss, local = x, x.new_zeros(()), x.new_zeros(())
        for i, block in enumerate(self.net):
            if str(i) in self.heads:
                local += loss
                h, loss = self._learn_block(i, h, y)
            else:
                h = block(h)
        return {"loss": loss, "local": local}

    def _learn_block(
        self, i: int, h: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."]
    ) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
        """h_l and L_l; block and head have learnt."""
        block, head = self.net[i], self.heads[str(i)].get_parameter("weight")
        out, t, u = self._pushed(block, h) if f"blocks.{i}" in self.optimizers else (block(h), None, None)
        z = out.flatten(1)
        loss, e = output_error(z @ head.T, y, self.problem.kind)
        e.div_(len(e))
        if t is not None and u is not None:
            correlate(layer_of(block), h, self._delta(head, e, t, u))
            self.update(f"blocks.{i}")
        head.grad = e.T @ z
        self.update(f"heads.{i}")
        return out, loss

    def _pushed(self, block: nn.Module, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h_l, its tangent t_l and the push u_l."""
        pushes = []

        def push(a: Tensor) -> Tensor:
            pushes.append(directions(block, a, self.generator))
            dual: Tensor = make_dual(a, pushes[0])
            return dual

        with dual_level(), tapped(layer_of(block), push):
            out, t = unpack_dual(block(h))
        if t is None:
            raise UsageError("LocalForwardGradient: " + NO_TANGENT)
        return out, t, pushes[0]

    def _delta(
        self,
        head: Float[Tensor, "outputs units"],
        e: Float[Tensor, "batch outputs"],
        t: Float[Tensor, "batch ..."],
        u: Float[Tensor, "batch ..."],
    ) -> Float[Tensor, "batch ..."]:
        """d_lg u_lg, where `e` has been divided by the batch."""
        moved = torch.einsum("bgu,ogu->bgo", t.reshape(len(t), self.groups, -1), head.unflatten(1, (self.groups, -1)))
        d = (moved * e.unsqueeze(1)).sum(2, keepdim=True)
        delta: Tensor = (u.reshape(len(u), self.groups, -1) * d).view(u.shape)
        return delta

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        """The scores of the last head."""
        last = max(int(i) for i in self.heads)
        for block in list(self.net)[: last + 1]:
            x = block(x)
        scores: Tensor = self.heads[str(last)](x.flatten(1))
        return scores

    def mean(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch outputs"]:
        """The mean over the heads."""
        scores = x.new_zeros(len(x), self.problem.outputs)
        for i, block in enumerate(self.net):
            x = block(x)
            if str(i) in self.heads:
                scores += self.heads[str(i)](x.flatten(1)) / len(self.heads)
        return scores

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the last head, which is `forward`, and by the mean of all."""
        return {"last": self.forward, "mean": self.mean}
