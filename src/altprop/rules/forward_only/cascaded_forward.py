"""Cascaded forward (CaFo): blocks stay random, a linear predictor on each learns by itself, and predictions are summed.

Zhao et al. 2023 (arXiv 2303.09728), without its optional training of the blocks. With random blocks F_i, features
z_i (flattened, N of them), one-hot labels Y and predictors P_i:

    h_i = F_i(h_{i-1}),    z_i = flat(h_i)
    P_i z = A_i z + b_i                               scores: the sum of P_i z_i over i
    "cross-entropy":  (A_i, b_i) descend CE(P_i z_i, y)
    "ridge":          [A_i b_i]^T = (Z^T Z + ridge tr(Z^T Z) / n I)^-1 Z^T Y,   Z = [z_i 1] of n columns

Ridge needs one look at each sample: Z^T Z and Z^T Y are running sums, and the solution is found before an evaluation.

Departures from the paper:
1. Blocks are the net's own, as initialised; the paper's convolutions end in a batch normalisation, ours need none.
2. All predictors learn in one pass over each batch; the paper trains one after the other.
3. The ridge is relative to the mean square of the features, so that its default suits any width and scale; the bias
   is penalised like the weights. Sums go on from epoch to epoch: the same samples once more change no solution.
4. No sparsemax: cross-entropy or squared error.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Metrics, Problem, Rule


class CascadedForward(Rule):
    """Cascaded forward (Zhao et al. 2023) for blocks of any kind, without an output block.

    The rule freezes the net's blocks (`requires_grad` goes off); blocks without parameters have no predictor.

    Arguments:
        predictor: how the linear predictors learn: "cross-entropy" by gradient steps, or "ridge" in closed form
            (before an evaluation; it needs no optimizer).
        ridge: the penalty of "ridge" as a share of the features' mean square.
        The others are those of `Rule`; the parts are "heads.0", "heads.1", ... (the predictors), none with "ridge".

    Raises UsageError for a regression, an unknown predictor, and a net with an output block or without parameters.
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

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        predictor: Literal["cross-entropy", "ridge"] = "cross-entropy",
        ridge: float = 1e-3,
        **options: Any,
    ) -> None:
        if predictor not in ("cross-entropy", "ridge") or ridge <= 0:
            raise UsageError(
                f"CascadedForward(predictor={predictor!r}, ridge={ridge}): choose the predictor cross-entropy or "
                "ridge, and a ridge above 0"
            )
        super().__init__(net, problem, **options)
        self.closed_form = predictor == "ridge"
        self.ridge = ridge
        self.heads = nn.ModuleDict()
        shapes = nets.shapes(net, self.problem.input_shape)
        for i, block in enumerate(net):
            weight = next(block.parameters(), None)
            if weight is not None:
                self._add_head(i, math.prod(shapes[i]), weight)
        if self.closed_form:
            self.claims = replace(self.claims, training_only=True)  # the sums

    def _add_head(self, i: int, width: int, like: Tensor) -> None:
        """A predictor that starts at zero, and its sums if it is solved for."""
        classes = self.problem.outputs
        head = nn.utils.skip_init(nn.Linear, width, classes, device=like.device, dtype=like.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.heads[str(i)] = head
        if self.closed_form:
            head.requires_grad_(False)
            self.register_buffer(f"squares_{i}", like.new_zeros(width + 1, width + 1))
            self.register_buffer(f"targets_{i}", like.new_zeros(width + 1, classes))
        else:
            self.add_part(f"heads.{i}", head)

    def add_part(self, name: str, module: nn.Module) -> None:
        """As in `Rule`, but the net's blocks are frozen instead of getting optimizers."""
        if name.startswith("blocks."):
            module.requires_grad_(False)
        super().add_part(name, module)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "its predictors tell classes apart, and a regression has none; choose another rule"
        if nets.output_layer(net) is not None:
            return "it brings a predictor for every block, the last one too; build the net without classes"
        if not any(True for _ in net.parameters()):
            return "it needs a block with parameters (build the net with altprop.nets and a hidden width)"
        return None

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the mean of the predictors' losses; with "ridge" (squared error) as last solved."""
        assert y is not None
        loss = x.new_zeros(())
        for i, z in self._features(x):
            loss += self._gather(i, z, y) if self.closed_form else self._descend(i, z, y)
        return {"loss": loss / len(self.heads)}

    def _features(self, x: Float[Tensor, "batch ..."]) -> Iterator[tuple[int, Float[Tensor, "batch features"]]]:
        """z_i of each block that has a predictor, one after another."""
        for i, block in enumerate(self.net):
            x = block(x)
            if str(i) in self.heads:
                yield i, x.flatten(1)

    @torch.enable_grad()
    def _descend(self, i: int, z: Float[Tensor, "batch features"], y: Shaped[Tensor, " batch"]) -> Tensor:
        """One step of predictor i on the cross-entropy."""
        loss = nn.functional.cross_entropy(self.heads[str(i)](z), y)
        loss.backward()
        self.update(f"heads.{i}")
        return loss.detach()

    def _gather(self, i: int, z: Float[Tensor, "batch features"], y: Shaped[Tensor, " batch"]) -> Tensor:
        """Z^T Z and Z^T Y grow by one batch; returns the squared error of the predictor as it is."""
        targets = nn.functional.one_hot(y, self.problem.outputs).to(z)
        loss: Tensor = 0.5 * (self.heads[str(i)](z) - targets).square().sum(1).mean()
        z = nn.functional.pad(z, (0, 1), value=1.0)
        self.get_buffer(f"squares_{i}").addmm_(z.t(), z)
        self.get_buffer(f"targets_{i}").addmm_(z.t(), targets)
        return loss

    def finish(self) -> None:
        """With "ridge": solve for the predictors. The sums, which are all that training goes on from, stay."""
        if not self.closed_form:
            return
        for i, head in self.heads.items():
            assert isinstance(head, nn.Linear)
            squares, targets = self.get_buffer(f"squares_{i}"), self.get_buffer(f"targets_{i}")
            if bool(squares[-1, -1]):  # the number of samples so far
                solved = solve(squares, targets, self.ridge)
                self.assign(head.weight, solved[:-1].t())
                self.assign(head.bias, solved[-1])

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """The predictors' scores, summed over the blocks."""
        scores = x.new_zeros(len(x), self.problem.outputs)
        for i, z in self._features(x):
            scores = scores + self.heads[str(i)](z)
        return scores


def solve(
    squares: Float[Tensor, "n n"], targets: Float[Tensor, "n classes"], ridge: float
) -> Float[Tensor, "n classes"]:
    """(S + ridge tr(S) / n I)^-1 T by Cholesky, in double precision: S squares the features' condition number."""
    s = squares.to(torch.float64, copy=True)
    s.diagonal().add_(ridge * s.diagonal().mean())
    solution: Tensor = torch.cholesky_solve(targets.double(), torch.linalg.cholesky(s))
    return solution.to(targets)
