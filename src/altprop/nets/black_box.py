"""Black boxes: parts of a net that have no derivative, as hardware has none.

For Hinton's mortal computation (Hinton 2022, arXiv 2212.13345, section 8): what the box does is not known to whoever
trains it, so that only rules that never look into it, or through it, can.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from altprop.errors import UsageError

REFUSED = (
    "a derivative was asked for through a black box, which has none; train this net with a rule that takes no "
    "derivative through a block, or give the box straight_through=True"
)
Model = Callable[[Tensor, Tensor], Tensor]
"""From what went into a box and what came out to a guess at the latter, whose derivative stands for the box's."""


class BlackBox(nn.Module):
    """`fn(x)` without a derivative: asking for one raises.

    Arguments:
        fn: from a tensor to one of the same shape: quantised, noisy, looked up in a table.
        straight_through: whether backprop may take the box for the identity (Bengio et al. 2013, arXiv 1308.3432).
        model: a guess at the box whose derivative backprop may take instead, such as `nets.Curves`.

    Raises UsageError if fn changes the shape.
    """

    def __init__(
        self, fn: Callable[[Tensor], Tensor], *, straight_through: bool = False, model: Model | None = None
    ) -> None:
        super().__init__()
        self.fn, self.model = fn, as_if_absent if straight_through else model

    @property
    def closed(self) -> bool:
        """Whether nothing stands for its derivative."""
        return self.model is None

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            out = self.fn(x.detach().clone())  # the function may work in place
        if not isinstance(out, Tensor):
            raise UsageError(
                f"a black box made a {type(out).__name__} of a tensor; its function must give a tensor back"
            )
        out = out.to(x)
        if out.shape != x.shape:
            raise UsageError(
                f"a black box got {tuple(x.shape)} and made {tuple(out.shape)} of it; its function must keep the shape"
            )
        if self.model is not None:
            guess = self.model(x, out)
            return guess + (out - guess).detach()
        opened: Tensor = _Closed.apply(x, out)  # type: ignore[no-untyped-call]
        return opened


class _Closed(torch.autograd.Function):
    """The box's output, tied to its input, so that a derivative through it is refused and not taken for zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor) -> Tensor:
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise UsageError(REFUSED)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise UsageError(REFUSED)


def as_if_absent(x: Tensor, out: Tensor) -> Tensor:
    """The straight-through estimate: the box is taken for the identity."""
    return x


def black_box(
    fn: Callable[[Tensor], Tensor], *, straight_through: bool = False, model: Model | None = None
) -> nn.Module:
    """A block (or a block's activation) that is a black box; see `BlackBox`."""
    return BlackBox(fn, straight_through=straight_through, model=model)
