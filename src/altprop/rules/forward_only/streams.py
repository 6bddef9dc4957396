"""Two streams through one block: inputs and targets, each with batch statistics of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
OWN = ("torch.nn.modules.", "altprop.nets.")
BatchNorm = nn.modules.batchnorm._NormBase
Seen = tuple[Tensor, Tensor]
"""A block's output, and what a loss on that block looks at."""
Look = Callable[[nn.Module, Tensor], Seen]


def both(
    block: nn.Module, h: Float[Tensor, "batch ..."], t: Float[Tensor, "rows ..."], look: Look
) -> tuple[Seen, Seen]:
    """The inputs' and the targets' output of a block, each with what a loss looks at."""
    if not each_row_by_itself(block):
        return look(block, h), target_pass(block, t, look)
    out, seen = look(block, torch.cat([h, t]))  # one product reads the weights once
    sizes = [len(h), len(t)]
    h, t = out.split(sizes)
    u, v = (h, t) if seen is out else seen.split(sizes)
    return (h, u), (t, v)


def before_activation(block: nn.Module, x: Float[Tensor, "rows ..."]) -> Seen:
    """A block's output, cut off from its affine layer, and the sums that this layer makes (the output without one)."""
    sums: list[Tensor] = []

    def cut(_: nn.Module, __: object, z: Tensor) -> Tensor:
        sums.append(z)
        return z.detach().clone()  # an activation may work in place

    layer = nets.affine(block)
    handle = None if layer is None else layer.register_forward_hook(cut)
    try:
        out: Tensor = block(x)
    finally:
        if handle is not None:
            handle.remove()
    return out, sums[0] if sums else out


def each_row_by_itself(block: nn.Module) -> bool:
    """Whether a row's output surely does not depend on the rows beside it: known modules, whose forward looks at no
    other row, and nothing that nobody can look into."""
    mixing = (BatchNorm, nets.BlackBox)
    return all(type(m).__module__.startswith(OWN) and not isinstance(m, mixing) for m in block.modules())


def target_pass(block: nn.Module, t: Float[Tensor, "rows ..."], look: Look) -> Seen:
    """The targets through a block, normalised by their own statistics."""
    with own_statistics(block):
        return look(block, t)


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
