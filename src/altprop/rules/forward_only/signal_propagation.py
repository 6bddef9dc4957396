"""Signal propagation: targets travel forward through the same blocks as the inputs, and each block compares the two.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723). With a learned signal S_m for each class m and blocks F_l:

    h_1 = F_1(x),           t_1m = f(S_m)                 the signal enters at the first block's output
    h_l = F_l(h_{l-1}),     t_lm = F_l(t_{l-1,m})         then both go through the same blocks
    L_l = CE(k cos(h_l, t_lm) over m, y)                  dW_l = dL_l/dW_l with h_{l-1} and t_{l-1} held fixed

A block learns as soon as both streams have passed it, and then its activities are dropped. Predictions: option 3, the
output block, learns by cross-entropy on h_{L-1} held fixed; option 1 is the class whose target is nearest to h_{L-1}.

Departures from the paper:
1. The targets are the classes, one row a class, and not one a sample of the batch: a sample is compared with every
   class, also with one that its batch lacks, and the second stream costs as many rows as there are classes.
2. Likeness is the cosine times `sharpness`, so that no block can win by growing its activities.
3. f is the first block's own activation, S_m stands for the paper's S c_m + d with a one-hot c_m, and is normal.
4. The targets never touch the inputs' running statistics: a batch normalisation takes the targets' own, over the class
   rows at hand, while learning and while predicting. There are no other rows, so they need no running average.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop import nets
from altprop.rule import Claims, Metrics, Problem, Rule

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
BatchNorm = nn.modules.batchnorm._NormBase


class SignalPropagation(Rule):
    """Signal propagation (Kohan, Rietman & Siegelmann 2022) for blocks of any kind, with an output block.

    Arguments:
        sharpness: k, the factor of the cosine in each block's softmax.
        The others are those of `Rule`; the parts are "blocks.0", "blocks.1", ... and "target" (the signals).
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
        self, net: nn.Sequential, problem: Problem | None = None, *, sharpness: float = 30.0, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        self.sharpness = sharpness
        self.entry = next(i for i in range(len(net)) if f"blocks.{i}" in self.optimizers)
        shape = nets.shapes(net, self.problem.input_shape)[self.entry]
        signal = torch.randn(self.problem.outputs, *shape, generator=self.generator)
        self.target = nn.ParameterList([signal.to(next(net[self.entry].parameters()))])
        self.add_part("target", self.target)

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        if problem.kind == "regression":
            return "it compares inputs with the targets of classes, and a regression has none; choose another rule"
        output, n = nets.output_layer(net), problem.outputs
        if output is None or output.out_features != n:
            return f"it needs an output block with {n} outputs (build the net with classes={n})"
        if not any(p.requires_grad for p in net[:-1].parameters()):
            return "it needs a block with trainable parameters before the output block (give the net a hidden width)"
        return None

    @torch.enable_grad()
    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        """The loss is the output block's; "local" is the sum of the other blocks' losses."""
        assert y is not None
        local = x.new_zeros(())
        h, t = x.detach(), None
        last = len(self.net) - 1
        for i in range(last):
            h, t = self._through(i, h, t)
            if t is not None and f"blocks.{i}" in self.optimizers:
                local += self._descend(i, self.sharpness * cosine(h, t), y)
            h, t = h.detach(), None if t is None else t.detach()
        return {"loss": self._descend(last, self.net[last](h), y), "local": local}

    def _descend(self, i: int, scores: Float[Tensor, "batch classes"], y: Shaped[Tensor, " batch"]) -> Tensor:
        """Block i learns from its own cross-entropy, and so does the signal where it enters."""
        loss = nn.functional.cross_entropy(scores, y)
        if loss.requires_grad:
            loss.backward()
            self.update(f"blocks.{i}")
            if i == self.entry:
                self.update("target")
        return loss.detach()

    def _through(self, i: int, h: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Both streams through block i."""
        block = self.net[i]
        if i <= self.entry:
            return block(h), self._enter() if i == self.entry else None
        assert t is not None
        if each_row_by_itself(block):
            inputs, targets = block(torch.cat([h, t])).split([len(h), len(t)])  # one product reads the weights once
            return inputs, targets
        return block(h), target_pass(block, t)

    def _enter(self) -> Float[Tensor, "classes ..."]:
        """t_1 = f(S)."""
        entry = self.net[self.entry]
        f = entry.activation if isinstance(entry, nets.Block) else None
        signal: Tensor = self.target[0]
        return signal if f is None else f(signal.clone())  # f may work in place

    def targets(self) -> Float[Tensor, "classes ..."]:
        """The classes' targets at the last hidden block of the net as it is now."""
        t = self._enter()
        for block in list(self.net)[self.entry + 1 : -1]:
            t = target_pass(block, t)
        return t

    def nearest(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Option 1: the cosine between each input and each class's target at the last hidden block."""
        for block in list(self.net)[:-1]:
            x = block(x)
        return cosine(x, self.targets())

    def predictors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Option 3, which is `forward`, and option 1."""
        return {"output": self.forward, "nearest": self.nearest}


def cosine(h: Float[Tensor, "batch ..."], t: Float[Tensor, "classes ..."]) -> Float[Tensor, "batch classes"]:
    """cos(h, t), with norms below 1e-3 taken as 1e-3: a row without activity is like no class."""
    h, t = h.flatten(1), t.flatten(1)
    t = nn.functional.normalize(t, dim=1, eps=1e-3)
    lengths: Tensor = torch.linalg.vector_norm(h, dim=1, keepdim=True)
    return (h @ t.T) / lengths.clamp_min(1e-3)


def each_row_by_itself(block: nn.Module) -> bool:
    """Whether a row's output surely does not depend on the rows beside it: PyTorch's layers, no batch statistics."""
    leaves = [module for module in block.modules() if not list(module.children())]
    return all(type(m).__module__.startswith("torch.nn.modules.") and not isinstance(m, BatchNorm) for m in leaves)


def target_pass(block: nn.Module, t: Float[Tensor, "classes ..."]) -> Float[Tensor, "classes ..."]:
    """The targets through a block, normalised by their own statistics."""
    with own_statistics(block):
        out: Tensor = block(t)
    return out


@contextmanager
def own_statistics(block: nn.Module) -> Iterator[None]:
    """Meanwhile batch normalisations use the statistics of what they are given, and their running ones stay as is."""
    norms = [m for m in block.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    kept = [{name: norm._buffers[name] for name in RUNNING} for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
            norm._buffers.update(dict.fromkeys(RUNNING))
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm.track_running_stats = True
            norm._buffers.update(buffers)
