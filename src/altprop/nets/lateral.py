"""Units that act on one another until they rest."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Lateral(nn.Module):
    """y with M y = u: each unit's y_i is what it is driven by, less what the others tell it, at rest.

    Stands in the place of a block's norm. For images M acts at every place alike.

    Arguments:
        units: M is (units, units), and the identity at first.
        ordered: M is lower triangular with ones on its diagonal: a unit hears those before it only.
    """

    def __init__(self, units: int, *, ordered: bool = False) -> None:
        super().__init__()
        self.ordered = ordered
        self.weight = nn.Parameter(torch.eye(units))

    def forward(self, u: Float[Tensor, "batch units ..."]) -> Float[Tensor, "batch units ..."]:
        columns = u.movedim(1, 0).flatten(1)
        if self.ordered:
            y: Tensor = torch.linalg.solve_triangular(self.weight, columns, upper=False, unitriangular=True)
        else:
            y = torch.linalg.solve(self.weight, columns)
        return y.view(u.movedim(1, 0).shape).movedim(0, 1)
