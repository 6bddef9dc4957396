"""Binary units that inhibit one another until they rest."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop.errors import UsageError


class Settling(nn.Module):
    """y = [y* > 1/2], with y* at rest in dy*/dt = f(u + W y* - t) - y*, f(v) = 1 / (1 + exp(-slope v)).

    Stands in the place of a block's activation. From y* = 0, `sweeps` Euler steps of length `pace`: every sample costs
    the same, whatever stands beside it in the batch. For images W and t act at every place alike.

    Arguments:
        units: W is (units, units), symmetric, without a diagonal, not above 0; it and the thresholds t are 0 at first.
        slope: lambda, of f.
        sweeps, pace: of the way to rest.
    """

    def __init__(self, units: int, *, slope: float = 10.0, sweeps: int = 50, pace: float = 0.2) -> None:
        super().__init__()
        if slope <= 0 or sweeps < 1 or not 0 < pace <= 1:
            raise UsageError(
                f"Settling(slope={slope}, sweeps={sweeps}, pace={pace}): give a slope above 0, at least one sweep, and "
                "a pace above 0 and at most 1"
            )
        self.slope, self.sweeps, self.pace = slope, sweeps, pace
        self.weight = nn.Parameter(torch.zeros(units, units))
        self.thresholds = nn.Parameter(torch.zeros(units))

    def forward(self, u: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
        return fired(self.rest(u))

    def rest(self, u: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
        """y* after the last sweep."""
        drive = self._columns(u)
        state = torch.zeros_like(drive)
        for _ in range(self.sweeps):
            state = state.lerp(self._answer(drive, state), self.pace)
        return state.view(u.movedim(1, 0).shape).movedim(0, 1)

    def residual(
        self, u: Float[Tensor, "batch units ..."], state: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, " patches"]:
        """The largest |dy*/dt| among the units of each patch: 0 at rest."""
        columns = self._columns(state)
        return (self._answer(self._columns(u), columns) - columns).abs_().amax(0)

    def _columns(self, u: Float[Tensor, "batch units ..."]) -> Float[Tensor, "units patches"]:
        return u.movedim(1, 0).flatten(1)

    def _answer(
        self, drive: Float[Tensor, "units patches"], state: Float[Tensor, "units patches"]
    ) -> Float[Tensor, "units patches"]:
        away = torch.addmm(drive, self.weight, state).sub_(self.thresholds.unsqueeze(1))
        return away.mul_(self.slope).sigmoid_()


def fired(state: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
    """Whether units answer, as numbers."""
    return (state > 0.5).to(state.dtype)
