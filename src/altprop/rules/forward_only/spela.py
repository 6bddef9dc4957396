"""SPELA, the Solo Pass Embedded Learning Algorithm: every block turns its activities towards fixed class vectors.

Somasundaram, Mishra & Borthakur 2025 (TMLR, arXiv 2402.09769). Block F_i with n_i outputs holds a unit vector v_im for
each class m, fixed and spread over the sphere like charges that repel each other:

    h_i = F_i(h_{i-1})
    L_i = log(2 - cos(h_i, v_iy))                     dW_i = dL_i/dW_i with h_{i-1} held fixed
    prediction: the class m of the largest cos(h_i, v_im) at the last block, in a single pass

A block learns as soon as the input has reached it, and then its activities are dropped.

Departures from the paper:
1. Charges move for 100 steps of a length that falls, not for thousands of small ones: with n >= classes - 1 they end
   at the regular simplex. Every block draws its own vectors; none are carried over from the block before.
2. Blocks are of any kind (images are flattened), with Adam instead of plain gradient descent by default.
3. One more way to predict: by the cosines summed over all blocks.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule
from altprop.rules.forward_only.activity import lengths

STEPS = 100
"""Steps of the repulsion."""
FAINT = 1e-3
"""An activity is taken to be at least as long as this: a row without any is like no class."""


class SPELA(Rule):
    """SPELA (Somasundaram, Mishra & Borthakur 2025) for blocks of any kind; the last one may be an output block.

    Blocks without trainable parameters hold no class vectors and are passed through.

    Arguments: those of `Rule`; the parts are "blocks.0", "blocks.1", ...

    Raises UsageError for a regression, and where no block has trainable parameters or one has a single output.
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=False,
        same_net=False,
        labels=True,
        batch_of_one=True,
    )

    def __init__(self, net: nn.Sequential, problem: Problem | None = None, **options: Any) -> None:
        super().__init__(net, problem, **options)
        shapes = nets.shapes(net, self.problem.input_shape)
        self.learners = [i for i in range(len(net)) if f"blocks.{i}" in self.optimizers]
        for i in self.learners:
            width = math.prod(shapes[i])
            if width < 2:
                raise UsageError(f"SPELA: block {i} has one output, which leaves no angles; make it at least 2 wide")
            drawn = torch.randn(self.problem.outputs, width, generator=self.generator)
            self.register_buffer(f"vectors_{i}", spread(drawn.double()).to(next(net[i].parameters())))

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "it pulls activities towards a vector of each class, and a regression has none; choose another rule"
        if not any(p.requires_grad for p in net.parameters()):
            return "it needs a block with trainable parameters (build the net with altprop.nets and a hidden width)"
        return None

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the last block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        h, loss, local = x.detach(), x.new_zeros(()), x.new_zeros(())
        for i, block in enumerate(self.net):
            h = block(h)
            if i in self.learners:
                local, loss = local + loss, self._descend(i, h, y)
            h = h.detach()
        return {"loss": loss, "local": local}

    def _descend(self, i: int, h: Float[Tensor, "batch ..."], y: Shaped[Tensor, " batch"]) -> Tensor:
        """Block i learns from L_i."""
        h = h.flatten(1)
        dots = (h * self.get_buffer(f"vectors_{i}")[y]).sum(1)
        loss = (2.0 - dots / lengths(h).clamp_min(FAINT)).log().mean()
        loss.backward()
        self.update(f"blocks.{i}")
        return loss.detach()

    def _cosines(self, x: Float[Tensor, "batch ..."]) -> Iterator[Float[Tensor, "batch classes"]]:
        """cos(h_i, v_im) of each learning block, one after another."""
        for i, block in enumerate(self.net):
            x = block(x)
            if i in self.learners:
                h = x.flatten(1)
                yield h @ self.get_buffer(f"vectors_{i}").t() / lengths(h).clamp_min(FAINT).unsqueeze(1)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The cosines at the last block."""
        *_, last = self._cosines(x)
        return last

    def sum(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The cosines summed over the blocks."""
        return torch.stack(list(self._cosines(x))).sum(0)

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """By the last block, which is `forward`, and by the sum of all."""
        return {"last": self.forward, "sum": self.sum}


def spread(v: Float[Tensor, "classes n"]) -> Float[Tensor, "classes n"]:
    """Unit vectors from v's rows that repel each other by 1 / distance^2 along the sphere; a fixed number of steps.

    Forces are scaled so that the strongest has length 1, and steps shrink to nothing. All in the span of v: two
    vectors end opposite, and m vectors in at least m - 1 dimensions as a regular simplex, cos = -1 / (m - 1).
    """
    v = nn.functional.normalize(v, dim=1)
    for step in range(STEPS):
        distance = (2.0 - 2.0 * (v @ v.t())).clamp_min(1e-12).sqrt()
        pushes = distance.fill_diagonal_(torch.inf).pow(-3)
        force = pushes.sum(1, keepdim=True) * v - pushes @ v
        force -= (force * v).sum(1, keepdim=True) * v
        longest = torch.linalg.vector_norm(force, dim=1).max().clamp_min(1e-12)
        v = nn.functional.normalize(v + 0.5 * (1.0 - step / STEPS) ** 2 * force / longest, dim=1)
    return v
