"""What the rules share whose error goes to each block directly: blocks that wait for it, each a graph of its own."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from altprop.rule import Metrics, Problem, Rule
from altprop.rules.losses import output_error, output_missing
from altprop.rules.random_feedback import feed_back, feedback_to_blocks
from altprop.rules.watch import check_units


class Direct(Rule):
    """Base of those rules that send it through fixed random weights B_l; not one by itself."""

    def __init__(
        self, net: nn.Sequential, problem: Problem | None = None, *, scale: float = 1.0, **options: Any
    ) -> None:
        super().__init__(net, problem, **options)
        for name, b in feedback_to_blocks(self, scale).items():
            self.register_buffer(name, b)

    def told(self, e: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch outputs"]:
        """What hidden blocks are told of the output's error e, which is averaged over the batch."""
        raise TypeError(f"{type(self).__name__} has no told(e): every rule writes its own")

    @classmethod
    def supports(cls, net: nn.Sequential, problem: Problem) -> str | None:
        return output_missing(net, problem)

    def learn(self, x: Float[Tensor, "batch ..."], y: Shaped[Tensor, "batch ..."] | None) -> Metrics:
        assert y is not None
        scores, blocks = waiting(self, x)
        loss, e = output_error(scores, y, self.problem.kind)
        e.div_(len(e))
        told = self.told(e)
        for i in sorted(blocks):
            delta = e if i == len(self.net) - 1 else feed_back(told, self.get_buffer(f"feedback_{i}"))
            blocks.pop(i).backward(delta)
            self.update(f"blocks.{i}")
        return {"loss": loss}


@torch.enable_grad()
def waiting(rule: Rule, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """The scores, and the output of every block that learns, each a graph of its own that waits for the error."""
    found = {}
    h = x.detach()
    for i, block in enumerate(rule.net):
        out = block(h)
        if f"blocks.{i}" in rule.optimizers:
            found[i] = out
        check_units(rule, i, h, out)
        h = out.detach()
    return h, found
