"""What the rules share whose error goes to each block directly: blocks that wait for it, each a graph of its own."""

import torch
from torch import Tensor

from altprop.rule import Rule
from altprop.rules.watch import check_units


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
