"""Hebbian ICA: units look for directions in which white inputs are least normal; one nonlinearity is all it takes.

With z white (mean 0, covariance I), y = W z, means over all patches of a batch, and s = sign <y g(y) - g'(y)>, which is
kept online for each unit, because it says whether its source has heavier or lighter tails than g takes for granted:

    "one-unit"       dW = s <g(y) z^T>, then rows are made orthonormal     Hyvärinen & Oja 1998
                     (doi 10.1016/S0165-1684(97)00197-7)
    "nonlinear-pca"  dW = <g(y) z^T> - <g(y) g(y)^T> W                     Karhunen & Joutsensalo 1994, Oja 1997
                     (doi 10.1016/0893-6080(94)90054-X); tanh finds light tails only, the cube heavy ones only
    "infomax"        dW = (I - <f(y) y^T>) W, f = y + k tanh y             Lee, Girolami & Sejnowski 1999, extended
                     (doi 10.1162/089976699300016719), k = sign of each unit's kurtosis
    "easi"           dW = (I - <y y^T> - <f y^T> + <y f^T>) W, f = -s g    Cardoso & Laheld 1996
                     (doi 10.1109/78.553476)

g is tanh y, y^3 ("cubic") or y exp(-y^2/2) ("gauss"). Rows are made orthonormal all at once, W <- (W W^T)^-1/2 W
("symmetric"), or one after another ("deflation"). The last two rules whiten by themselves and take any centred input.
As in FastHebb (Lagani et al. 2022, arXiv 2207.03172), sums over units are taken on the Gram matrix.

Departures from the papers:
1. Batches: means in the place of one sample at a time. y is cut to [-3, 3] in the cube, against outliers.
2. EASI's sign is adapted, too. With the last two rules, units that are fewer than inputs stay in the space of their
   first weights.
3. The input of each layer is whitened by running statistics; a layer's output goes through the net's activation, and
   the next layer learns from that.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.errors import UsageError
from altprop.rule import Claims, Problem
from altprop.rules.hebbian.patches import Layer, along, gram, means, mixed, product
from altprop.rules.hebbian.prepared import Prepared

UPDATES = ("one-unit", "nonlinear-pca", "infomax", "easi")
ORTHOGONAL = ("symmetric", "deflation")
WHITENING = ("infomax", "easi")
MEMORY = 0.99
"""Of what a unit's sign is taken from."""

Pair = tuple[Tensor, Tensor]


def tanh(y: Tensor) -> Pair:
    g = y.tanh()
    return g, 1.0 - g.square()


def cubic(y: Tensor) -> Pair:
    y = y.clamp(-3.0, 3.0)
    return y.pow(3), 3.0 * y.square()


def gauss(y: Tensor) -> Pair:
    bell = y.square().mul_(-0.5).exp_()
    return y * bell, (1.0 - y.square()) * bell


SLOPES: dict[str, Callable[[Tensor], Pair]] = {"tanh": tanh, "cubic": cubic, "gauss": gauss}
"""g(y) and g'(y)."""


class HebbianICA(Prepared):
    """One-unit rules, nonlinear PCA, infomax and EASI for linear and convolutional blocks, with a readout.

    For nets of linear and convolutional blocks without an output block.

    Arguments:
        update: "one-unit", "nonlinear-pca", "infomax" or "easi" (see the module).
        g: "tanh", "cubic" or "gauss".
        orthogonal: "symmetric" or "deflation", for one-unit rules.
        inputs, memory, eps: as in `Prepared`; readout, settle, penalty: as in `Hebbian`.
        The others are those of `Rule`; the parts are "blocks.1", "blocks.3", ... (of the rule's net) and "head".
    """

    claims = Claims(
        later_blocks="none",
        forward_lock=False,
        update_lock=False,
        order="forward",
        differentiable=False,
        memory="flat",
        training_only=True,
        same_net=True,
        labels=True,
        batch_of_one=True,
    )
    swings = False  # rows are made orthonormal, or whiten by themselves

    def __init__(
        self,
        net: nn.Sequential,
        problem: Problem | None = None,
        *,
        update: str = "one-unit",
        g: str = "tanh",
        orthogonal: str = "symmetric",
        inputs: str = "whitened",
        **options: Any,
    ) -> None:
        if update not in UPDATES or g not in SLOPES or orthogonal not in ORTHOGONAL:
            raise UsageError(
                f"HebbianICA(update={update!r}, g={g!r}, orthogonal={orthogonal!r}): choose an update among "
                f"{', '.join(UPDATES)}, a g among {', '.join(SLOPES)}, and orthogonal among {', '.join(ORTHOGONAL)}"
            )
        super().__init__(net, problem, inputs=inputs, **options)
        self.kind, self.slopes, self.orthogonal = update, SLOPES[g], orthogonal
        if update in WHITENING:
            self.longest = float("inf")  # they undo whatever scale their input has
        for i, block in enumerate(self.net):
            layer = nets.affine(block)
            if f"blocks.{i}" in self.optimizers and isinstance(layer, Layer):
                self._check_units(i, layer)
                # <y^4> and <y^2> for a kurtosis, or <y g - g'> alone; and how much these means weigh so far.
                self.register_buffer(f"tails_{i}", layer.weight.new_zeros(3, len(layer.weight)))

    def _check_units(self, i: int, layer: Layer) -> None:
        units, inputs = len(layer.weight), layer.weight[0].numel()
        if self.kind == "one-unit" and self.orthogonal == "deflation" and units > inputs:
            raise UsageError(
                f"HebbianICA: block {i} has {units} units that see {inputs} inputs, and no more rows than that can be "
                'orthonormal; take orthogonal="symmetric", or fewer units'
            )

    def adapt(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."], rate: float
    ) -> None:
        super().adapt(i, layer, x, u, rate)
        if self.kind == "one-unit":
            rows = layer.weight.flatten(1)
            rows = orthonormal(rows) if self.orthogonal == "symmetric" else deflated(rows)
            self.assign(layer.weight, rows.view_as(layer.weight))

    def change(
        self, i: int, layer: Layer, x: Float[Tensor, "batch ..."], u: Float[Tensor, "batch units ..."]
    ) -> Float[Tensor, "units ..."]:
        if self.kind == "infomax":
            k = self._sign(i, u.square().square(), u.square())
            return self._natural(layer, gram(u + k * u.tanh(), u))
        g, slope = self.slopes(u)
        if self.kind == "nonlinear-pca":
            return product(layer, g, x).sub_(mixed(gram(g, g), layer.weight))
        s = self._sign(i, u * g - slope)
        if self.kind == "one-unit":
            return product(layer, g.mul_(s), x)
        skew = gram(g.mul_(-s), u)
        return self._natural(layer, gram(u, u).add_(skew - skew.T))

    def _natural(self, layer: Layer, g: Float[Tensor, "units units"]) -> Float[Tensor, "units ..."]:
        """(I - g) W."""
        return layer.weight - mixed(g, layer.weight)

    def _sign(self, i: int, values: Tensor, squares: Tensor | None = None) -> Float[Tensor, "units ..."]:
        """Each unit's sign of <values>, less 3 <squares>^2 where they are given; means forget slowly."""
        tails = self.get_buffer(f"tails_{i}").mul_(MEMORY)
        tails[0].add_(means(values), alpha=1.0 - MEMORY)
        tails[2].add_(1.0 - MEMORY)
        if squares is not None:
            tails[1].add_(means(squares), alpha=1.0 - MEMORY)
        excess = tails[0] * tails[2] - 3.0 * tails[1].square()
        return along(torch.where(excess < 0, -1.0, 1.0).to(values), values)

    def look(self, i: int, layer: Layer, rows: Float[Tensor, "patches inputs"], rate: float) -> None:
        super().look(i, layer, rows, rate)
        if self.kind in WHITENING or (i > 0 and isinstance(self.net[i - 1], nets.Whiten)):
            return
        n, inputs = rows.shape
        least, most = torch.linalg.eigvalsh(rows.T @ rows / n)[[0, -1]].tolist()
        noise = (1.0 + (inputs / n) ** 0.5) ** 2  # what the largest eigenvalue of n white samples comes to
        if most > 2.0 * noise or most < 0.5 or (n > 4 * inputs and least < 0.02):
            raise UsageError(
                f"HebbianICA: the input of block {i} is not white (variances from {least:.2g} to {most:.2g}), and "
                f'{self.kind} needs it so; give inputs="whitened", or put nets.Whiten before the block, or take "easi"'
            )


def orthonormal(w: Float[Tensor, "units inputs"]) -> Float[Tensor, "units inputs"]:
    """(W W^T)^-1/2 W: the nearest matrix with orthonormal rows, or columns where there are more rows."""
    wide = w.shape[0] <= w.shape[1]
    sizes, vectors = torch.linalg.eigh(w @ w.T if wide else w.T @ w)
    root = (vectors * sizes.clamp_min_(torch.finfo(w.dtype).eps * float(sizes[-1])).rsqrt_()) @ vectors.T
    nearest: Tensor = root @ w if wide else w @ root
    return nearest


def deflated(w: Float[Tensor, "units inputs"]) -> Float[Tensor, "units inputs"]:
    """Gram and Schmidt's: each row loses what it shares with those before it, and comes to length 1."""
    q, r = torch.linalg.qr(w.T)
    rows: Tensor = (q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(w)).T.contiguous()
    return rows
