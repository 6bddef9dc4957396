"""Where the states of a net stand: behind each block's activation, or before it.

States "after" the activation: mu_l = f(W_l x_{l-1} + b_l), the blocks as they are. States "before" it, as in
Whittington & Bogacz 2017: mu_l = W_l f(x_{l-1}) + b_l, so that the cut goes through each block, behind its layer. The
two nets compute the same function of the input, and their energies differ.
"""

from torch import Tensor, nn

from altprop import nets

STATES = ("after", "before")


class Segment(nn.Module):
    """What lies between two states: the end of one block (`tail`), and the layer of the next one (`head`)."""

    def __init__(self, tail: nn.Module | None, head: nn.Module | None) -> None:
        super().__init__()
        self.tail, self.head = tail, head

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.tail, self.head):
            if part is not None:
                x = part(x)
        return x


def segments(net: nn.Sequential, states: str) -> list[nn.Module]:
    """What predicts each state from the one below it, as many as there are blocks; they share the net's parameters.

    The last block is an output block: nothing lies behind its layer. A block that is no `nets.Block` with a layer is
    not cut, and its state stands behind it.
    """
    if states == "after":
        return list(net)
    found: list[nn.Module] = []
    tail: nn.Module | None = None
    for block in net:
        if isinstance(block, nets.Block) and block.affine is not None:
            found.append(Segment(tail, block.affine))
            rest = [part for part in (block.norm, block.activation, block.pool) if part is not None]
            tail = rest[0] if len(rest) == 1 else nn.Sequential(*rest) if rest else None
        else:
            found.append(Segment(tail, block))
            tail = None
    return found


def mixes_samples(net: nn.Sequential) -> str | None:
    """Why a sample's states cannot relax alone, or its predictions stay as they are, in words; None if they can."""
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and _shares_statistics(module):
            return (
                f"{name} ({type(module).__name__}) keeps statistics over samples, and each sample's states must "
                "relax alone; use LayerNorm or GroupNorm"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return f"{name} ({type(module).__name__}) predicts anew at random in each sweep; leave it out"
    return None


def _shares_statistics(norm: nn.modules.batchnorm._NormBase) -> bool:
    return isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.track_running_stats
