"""What a loss on a block looks at, where that is not the block's output.

A spiking neuron shows its voltage, a step function what it is a step of. Rules ask by `observe`, which calls the block
as everybody does; so nothing about the net changes.
"""

from torch import Tensor, nn


class Observed(nn.Module):
    """An activation that shows a loss something else than its output; a subclass writes `respond`."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: list[Tensor] | None = None

    def respond(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and what a loss looks at, of the same shape."""
        raise TypeError(f"{type(self).__name__} has no respond(z): every observed activation writes its own")

    def forward(self, z: Tensor) -> Tensor:
        out, seen = self.respond(z)
        if self._watched is not None:
            self._watched.append(seen)
        return out


def observe(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block's output, and what a loss on that block looks at: what its last observed activation shows, if it has one
    (pooled as its output is), and otherwise the output itself."""
    shown = [module for module in block.modules() if isinstance(module, Observed)]
    if not shown:
        out: Tensor = block(x)
        return out, out
    watched = shown[-1]._watched = []
    try:
        out = block(x)
    finally:
        shown[-1]._watched = None
    pool = getattr(block, "pool", None)
    return out, watched[-1] if pool is None else pool(watched[-1])
