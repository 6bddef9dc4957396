"""Hebbian PCA and ICA: fixed points against eigenvectors and sources, one step against plain loops over samples."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.rule import Problem
from altprop.rules.hebbian.body import Hebbian
from altprop.rules.hebbian.ica import HebbianICA
from altprop.rules.hebbian.lateral_pca import LateralPCA
from altprop.rules.hebbian.pca import HebbianPCA

INPUTS, UNITS, BATCH, STEPS = 20, 4, 128, 1500
VARIANCES = torch.tensor([10.0, 8.0, 6.0, 4.0, 2.0, *[0.5] * 15], dtype=torch.float64)


def alone(kind: type[Hebbian], net: nn.Sequential, rate: float, shape: tuple[int, ...], **options: Any) -> Hebbian:
    """The body by itself, by gradient descent at this rate."""
    sgd = partial(torch.optim.SGD, lr=rate)
    rule = kind(net, Problem(shape, 2), readout=None, settle=float("inf"), optimizer=sgd, **options)
    return rule


def linear(inputs: int, units: int, seed: int) -> nn.Sequential:
    """A linear layer in float64, with rows of about length 1."""
    layer = nn.Linear(inputs, units, bias=False).double()
    draw = torch.Generator().manual_seed(seed)
    layer.weight.data = torch.randn(units, inputs, generator=draw, dtype=torch.float64) / inputs**0.5
    return nn.Sequential(nets.Block(layer, activation=nn.Identity()))


def falling(progress: float) -> float:
    """1 / (1 + t / tau), a twentieth of the run for tau."""
    return 1.0 / (1.0 + 20.0 * progress)


def learned(
    kind: type[Hebbian], seed: int, rate: float = 0.05, steps: int = STEPS, **options: Any
) -> tuple[Any, Tensor]:
    """A rule after `steps` batches of normal inputs with VARIANCES along the columns of the second value."""
    draw = torch.Generator().manual_seed(100 + seed)
    axes, _ = torch.linalg.qr(torch.randn(INPUTS, INPUTS, generator=draw, dtype=torch.float64))
    options = {"inputs": "as they are", "relative": False, "schedule": falling, **options}
    rule = alone(kind, linear(INPUTS, options.pop("units", UNITS), seed), rate, (INPUTS,), **options)
    mixing = (axes * VARIANCES.sqrt()).T
    for step in range(steps):
        rule.progress = step / steps
        rule.absorb(torch.randn(BATCH, INPUTS, generator=draw, dtype=torch.float64) @ mixing)
    return rule, axes


def cosines(w: Float[Tensor, "units inputs"], axes: Float[Tensor, "inputs inputs"]) -> Float[Tensor, "units units"]:
    """|cos| of each row with each of the first axes."""
    return (nn.functional.normalize(w, dim=1) @ axes[:, : len(w)]).abs()


def sine(w: Float[Tensor, "units inputs"], axes: Float[Tensor, "inputs inputs"]) -> float:
    """Of the largest angle between the rows' space and that of the first axes."""
    basis, _ = torch.linalg.qr(w.T)
    outside = basis - axes[:, : len(w)] @ (axes[:, : len(w)].T @ basis)
    return float(torch.linalg.matrix_norm(outside, 2))


def from_identity(w: Float[Tensor, "units inputs"]) -> float:
    """How far rows are from orthonormal."""
    return float((w @ w.T - torch.eye(len(w), dtype=w.dtype)).abs().max())


def pca_equals_eigenvectors() -> Iterator[Check]:
    """Weights that learnt from samples against the eigenvectors of the covariance they were drawn from."""
    for seed in range(3):
        rule, axes = learned(HebbianPCA, seed, update="oja")  # each unit for itself, from a start of its own
        w, says = rule.net[0].affine.weight.detach(), f"Oja, four starts, data {seed}"
        yield Check(f"{says}: least |cos| to the first", float(cosines(w, axes)[:, 0].min()), 0.998, "at least")
        yield Check(f"{says}: most | ||w|| - 1 |", float((w.norm(dim=1) - 1.0).abs().max()), 1e-3)
        rule, axes = learned(HebbianPCA, seed, update="subspace")
        w = rule.net[0].affine.weight.detach()
        yield Check(f"subspace, data {seed}: sine to the first four", sine(w, axes), 0.03)
        yield Check(f"subspace, data {seed}: rows from orthonormal", from_identity(w), 5e-4)
        rule, axes = learned(HebbianPCA, seed, update="sanger")
        least = float(cosines(rule.net[0].affine.weight.detach(), axes).diagonal().min())
        yield Check(f"Sanger, data {seed}: least |cos| of unit i to the i-th", least, 0.997, "at least")
    rule, axes = learned(Reversed, 0, update="sanger")
    found = cosines(rule.net[0].affine.weight.detach(), axes)
    reverse = float(found.flip(1).diagonal().min())
    yield Check("Sanger with triu: |cos| of unit i to the (K-i)-th", reverse, 0.99, "at least", control=True)
    rule, axes = learned(HebbianPCA, 0, update="weighted", lowest=0.4)
    w = rule.net[0].affine.weight.detach()
    yield Check(
        "weighted: least |cos| of unit i to the i-th", float(cosines(w, axes).diagonal().min()), 0.999, "at least"
    )
    lengths = w.square().sum(1) * torch.linspace(0.4, 1.0, UNITS, dtype=w.dtype)
    yield Check("weighted: theta ||w||^2 - 1", float((lengths - 1.0).abs().max()), 5e-3)


class Reversed(HebbianPCA):
    """The wrong triangle: unit i leaves out those behind it."""

    def _shares(self, g: Float[Tensor, "units units"]) -> Float[Tensor, "units units"]:
        return g.triu_()


def lateral_pca_equals_eigenvectors() -> Iterator[Check]:
    """Weights that learnt from samples against the eigenvectors of the covariance they were drawn from."""
    rule, axes = learned(LateralPCA, 0, update="apex")
    layer, lateral = rule.net[0].affine, rule.net[0].norm
    found = cosines(layer.weight.detach(), axes)
    yield Check("APEX: least |cos| of unit i to the i-th", float(found.diagonal().min()), 0.997, "at least")
    yield Check("APEX: lateral weights that are left", float(lateral.weight.detach().tril(-1).abs().max()), 0.05)
    rule, axes = learned(LateralPCA, 0, rate=0.2, update="similarity-matching", relative=True)
    f = torch.linalg.solve(rule.net[0].norm.weight, rule.net[0].affine.weight).detach()
    yield Check("similarity matching: sine of M^-1 W to the first four", sine(f, axes), 0.025)
    yield Check("similarity matching: rows of M^-1 W from orthonormal", from_identity(f), 3e-4)


def similarity_matching_equals_the_fast_form() -> Iterator[Check]:
    """Samples one at a time against fast similarity matching, whose M^-1 is kept by Sherman and Morrison's formula."""
    rate, tau = 0.02, 0.5
    options: dict[str, Any] = {"update": "similarity-matching", "tau": tau, "floor": 0.0, "relative": False}
    rule = alone(LateralPCA, linear(INPUTS, UNITS, 0), rate, (INPUTS,), inputs="as they are", **options)
    w, inverse = next(rule.net.parameters()).detach().clone(), torch.eye(UNITS, dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    for x in torch.randn(300, INPUTS, generator=draw, dtype=torch.float64):
        rule.absorb(x[None])
        y = inverse @ (w @ x)
        w += 2 * rate * (torch.outer(y, x) - w)
        inverse /= 1.0 - rate / tau
        z = inverse @ y
        inverse -= rate / tau * torch.outer(z, z) / (1.0 + rate / tau * float(y @ z))
    found = dict(rule.net[0].named_parameters())
    settled = torch.linalg.solve(found["norm.weight"], found["affine.weight"]).detach()
    yield Check("M^-1 W after 300 samples", apart(settled, inverse @ w), 1e-10)
    yield Check("W after 300 samples", apart(found["affine.weight"].detach(), w), 1e-10)


def separated(sources: Tensor, passes: int = 12, rate: float = 0.05, *, white: bool = True, **options: Any) -> float:
    """The Amari index of what a rule makes of mixed sources: 0 where each unit has one of its own."""
    n = sources.shape[1]
    draw = torch.Generator().manual_seed(5)
    mixing = torch.randn(n, n, generator=draw, dtype=torch.float64)
    x = (sources - sources.mean(0)) @ mixing.T
    sizes, axes = torch.linalg.eigh(x.T @ x / len(x))
    whitening = (
        axes @ torch.diag(sizes.rsqrt()) @ axes.T if white else torch.eye(n, dtype=torch.float64) / sizes[-1] ** 0.5
    )
    z = x @ whitening.T
    rule = alone(HebbianICA, linear(n, n, 0), rate, (n,), inputs="as they are", schedule=falling, **options)
    for step in range(passes):
        for i, batch in enumerate(z[torch.randperm(len(z), generator=draw)].split(200)):
            rule.progress = (step + 200 * i / len(z)) / passes
            rule.absorb(batch)
    layer = nets.affine(rule.net[0])
    assert isinstance(layer, nn.Linear)
    return amari(layer.weight.detach() @ whitening @ mixing)


def amari(p: Float[Tensor, "units sources"]) -> float:
    """0 for a permutation with any scales; 1 at most."""
    p = p.abs()
    rows = (p.sum(1) / p.amax(1) - 1.0).sum()
    columns = (p.sum(0) / p.amax(0) - 1.0).sum()
    return float(rows + columns) / (2 * len(p) * (len(p) - 1))


def drawn(laplace: int, uniform: int, samples: int = 20_000) -> Float[Tensor, "samples sources"]:
    """Sources of variance 1."""
    draw = torch.Generator().manual_seed(3)
    u = torch.rand(samples, laplace + uniform, generator=draw, dtype=torch.float64) - 0.5
    heavy = -u.sign() * (1.0 - 2.0 * u.abs()).clamp_min(1e-12).log() / 2**0.5
    return torch.cat([heavy[:, :laplace], u[:, laplace:] * 12**0.5], 1)


def ica_finds_sources() -> Iterator[Check]:
    """Mixed sources, two of heavy tails (Laplace) and two of light ones (uniform), found by adapted signs."""
    both = drawn(2, 2)
    for g, rate in (("tanh", 0.5), ("cubic", 0.05), ("gauss", 0.5)):
        for orthogonal in ("symmetric", "deflation"):
            index = separated(both, rate=rate, update="one-unit", g=g, orthogonal=orthogonal)
            yield Check(f"one-unit, {g}, {orthogonal}: Amari index", index, 0.02)
    yield Check("extended infomax: Amari index", separated(both, 30, 0.2, update="infomax"), 0.03)


def nonlinear_pca_finds_what_its_curve_is_for() -> Iterator[Check]:
    """Tanh finds light tails and fails on heavy ones, the cube finds those; EASI finds light ones without whitening."""
    light, heavy = drawn(0, 4), drawn(4, 0)
    tanh: dict[str, Any] = {"update": "nonlinear-pca", "g": "tanh"}
    cube: dict[str, Any] = {"update": "nonlinear-pca", "g": "cubic"}
    yield Check("tanh on uniform: Amari index", separated(light, rate=0.5, **tanh), 0.01)
    index = separated(heavy, rate=0.5, **tanh)
    yield Check("tanh on Laplace: Amari index", index, 0.3, "at least", control=True)
    yield Check("cube on Laplace: Amari index", separated(heavy, 40, 0.02, **cube), 0.02)
    index = separated(light, update="easi", g="cubic", white=False)
    yield Check("EASI, cube, uniform, not whitened: Amari index", index, 0.02)
