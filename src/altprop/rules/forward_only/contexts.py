"""Context generators: where signal propagation's second stream comes from.

Kohan, Rietman & Siegelmann 2022 (arXiv 2204.01723): the learning signal of a target with code c (one-hot for a class,
the values themselves for a regression) is S c + d, in the shape of whatever it enters.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Context(nn.Module):
    """S c + d: codes (rows, outputs) to signals (rows, *shape).

    Arguments:
        outputs: length of a code.
        shape: of one signal.
        learned: whether S and d are parameters, or buffers that stay as they were drawn.
        generator: S is normal; d is zero.

    Attributes:
        signals: (outputs, *shape), S: a row is the signal of one class.
        origin: (*shape,), d; None for classes, whose signals are free without it.
    """

    signals: Tensor

    def __init__(
        self, outputs: int, shape: tuple[int, ...], *, learned: bool, origin: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        drawn = {"signals": torch.randn(outputs, *shape, generator=generator)}
        if origin:
            drawn["origin"] = torch.zeros(shape)
        for name, value in drawn.items():
            if learned:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, codes: Float[Tensor, "rows outputs"] | None) -> Float[Tensor, "rows ..."]:
        """The signals of these codes; None: of every class in turn."""
        if codes is None:
            return self.signals
        found = (codes @ self.signals.flatten(1)).view(-1, *self.signals.shape[1:])
        origin: Tensor | None = getattr(self, "origin", None)
        return found if origin is None else found + origin
