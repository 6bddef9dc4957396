"""Hebbian updates by matrix products against plain loops over samples, units and patches; and Hebbian readouts."""

from collections.abc import Callable, Iterator
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
from altprop.rules.hebbian.patches import Layer, product
from altprop.rules.hebbian.pca import HebbianPCA

RATE = 0.3
PCA: tuple[dict[str, Any], ...] = (
    {"update": "oja"},
    {"update": "subspace"},
    {"update": "sanger"},
    {"update": "sanger", "response": "relu"},
    {"update": "weighted", "lowest": 0.4},
)
ICA: tuple[dict[str, Any], ...] = (
    {"update": "one-unit", "g": "cubic"},
    {"update": "one-unit", "g": "gauss", "orthogonal": "deflation"},
    {"update": "nonlinear-pca"},
    {"update": "infomax"},
    {"update": "easi"},
)
LATERAL: tuple[dict[str, Any], ...] = ({"update": "apex"}, {"update": "similarity-matching"})


def layers() -> Iterator[tuple[str, Layer, tuple[int, ...]]]:
    """A linear layer of four units, and convolutions, in float64, each with a sample's shape."""
    yield "linear", nn.Linear(7, 4, bias=False), (7,)
    yield "3x3", nn.Conv2d(2, 4, 3, bias=False), (2, 5, 6)
    yield "3x2, stride 2, padding 1", nn.Conv2d(2, 4, (3, 2), stride=2, padding=1, bias=False), (2, 6, 5)
    yield "3x3, dilation 2", nn.Conv2d(1, 4, 3, dilation=2, bias=False), (1, 7, 6)
    yield "3x3, padding by reflection", nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect", bias=False), (1, 4, 4)


def seen(layer: Layer, x: Float[Tensor, "batch ..."]) -> list[Float[Tensor, " inputs"]]:
    """What the units see, place by place."""
    if isinstance(layer, nn.Linear):
        return list(x)
    (high, wide), (down, along) = layer.kernel_size, layer.dilation
    pad = [int(p) for p in layer.padding for _ in range(2)][::-1]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    found = []
    for image in nn.functional.pad(x, pad, mode=mode):
        rows, columns = image.shape[1] - down * (high - 1), image.shape[2] - along * (wide - 1)
        for r in range(0, rows, layer.stride[0]):
            for c in range(0, columns, layer.stride[1]):
                cells = [[image[:, r + down * i, c + along * j] for j in range(wide)] for i in range(high)]
                found.append(torch.stack([torch.stack(row, 1) for row in cells], 1).flatten())
    return found


def looped(w: Tensor, rows: list[Tensor], update: str, **options: Any) -> Float[Tensor, "units inputs"]:
    """A weight's change by a PCA rule: the mean of each sample's own, unit by unit."""
    units, total = len(w), torch.zeros_like(w)
    for x in rows:
        y = [float(w[k] @ x) for k in range(units)]
        y = [max(0.0, value) for value in y] if options.get("response") == "relu" else y
        for k in range(units):
            heard = {"oja": [k], "sanger": list(range(k + 1))}.get(update, list(range(units)))
            theta = 0.4 + 0.6 * k / (units - 1) if update == "weighted" else 1.0
            total[k] += y[k] * (x - theta * torch.stack([y[j] * w[j] for j in heard]).sum(0))
    return total / len(rows)


def looped_ica(w: Tensor, rows: list[Tensor], update: str, g: str = "tanh", **_: Any) -> Float[Tensor, "units inputs"]:
    """A weight's change by an ICA rule, whose signs are those of these samples."""
    curves: dict[str, Callable[[Tensor], Tensor]] = {
        "tanh": torch.tanh,
        "cubic": lambda y: y.clamp(-3, 3) ** 3,
        "gauss": lambda y: y * (-y * y / 2).exp(),
    }
    curve = curves[g]
    ys = [(w @ x).requires_grad_() for x in rows]
    slopes = [torch.autograd.grad(curve(y).sum(), y)[0] for y in ys]
    ys = [y.detach() for y in ys]
    s = torch.stack([y * curve(y) - slope for y, slope in zip(ys, slopes, strict=True)]).mean(0).sign()
    if update == "infomax":
        s = (torch.stack([y**4 for y in ys]).mean(0) - 3 * torch.stack([y**2 for y in ys]).mean(0) ** 2).sign()
    total, one = torch.zeros_like(w), torch.eye(len(w), dtype=w.dtype)
    for x, y in zip(rows, ys, strict=True):
        out = curve(y)
        if update == "one-unit":
            total += torch.outer(s * out, x)
        elif update == "nonlinear-pca":
            total += torch.outer(out, x - w.T @ out)
        elif update == "infomax":
            total += (one - torch.outer(y + s * y.tanh(), y)) @ w
        else:
            total += (one - torch.outer(y, y) + torch.outer(s * out, y) - torch.outer(y, s * out)) @ w
    return total / len(rows)


def looped_lateral(w: Tensor, m: Tensor, rows: list[Tensor], update: str) -> tuple[Tensor, Tensor]:
    """What both weights change by; units hear those before them, or all settle through the inverse."""
    units, dw, dm = len(w), torch.zeros_like(w), torch.zeros_like(m)
    for x in rows:
        y = torch.linalg.inv(m) @ (w @ x)
        if update == "apex":
            y = torch.zeros(units, dtype=w.dtype)
            for i in range(units):
                y[i] = w[i] @ x - sum(float(m[i, j] * y[j]) for j in range(i))
            for i in range(units):
                dw[i] += y[i] * (x - y[i] * w[i])
                for j in range(i):
                    dm[i, j] += y[i] * y[j] - m[i, j] * y[i] ** 2
        else:
            dw += 2 * (torch.outer(y, x) - w)
            dm += (torch.outer(y, y) + 1e-5 * torch.eye(units, dtype=w.dtype) - m) / 0.5
    return dw / len(rows), dm / len(rows)


def body(kind: type[Hebbian], layer: Layer, shape: tuple[int, ...], options: dict[str, Any]) -> Hebbian:
    """A rule on this layer, without a readout, with weights of length 1 or less."""
    layer = layer.double()
    draw = torch.Generator().manual_seed(1)
    size = layer.weight[0].numel() ** -0.5
    layer.weight.data = size * torch.randn(layer.weight.shape, generator=draw, dtype=torch.float64)
    net = nn.Sequential(nets.Block(layer, activation=nn.Identity()))
    sgd = partial(torch.optim.SGD, lr=RATE)
    return kind(net, Problem(shape, 2), readout=None, inputs="as they are", optimizer=sgd, **options)


def batch(shape: tuple[int, ...], seed: int = 2) -> Tensor:
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x - x.mean(0)


def pca_equals_loops() -> Iterator[Check]:
    """One step against a plain loop over samples and units; and the mean of two halves' changes is the whole's."""
    for name, layer, shape in layers():
        x = batch(shape)
        for options in PCA:
            rule = body(HebbianPCA, layer, shape, {"relative": False, **options})
            w = layer.weight.detach().flatten(1).clone()
            change = looped(w, seen(layer, x), **options)
            rule.absorb(x)
            found = (layer.weight.detach().flatten(1) - w) / RATE
            yield Check(f"{name}, {', '.join(map(str, options.values()))}: change", apart(found, change), 1e-12)
    for name, layer, shape in layers():
        for options in PCA:
            rule, x = body(HebbianPCA, layer, shape, {"relative": False, **options}), batch(shape)
            whole, one, other = (rule.change(0, layer, part, layer(part)).detach() for part in (x, x[:3], x[3:]))
            yield Check(f"{name}, two halves, {options['update']}", apart((one + other) / 2, whole), 1e-12)
    layer = nn.Linear(7, 4, bias=False)
    for options in PCA:
        rule, x = body(HebbianPCA, layer, (7,), {"relative": False, **options}), batch((7,))
        whole = rule.change(0, layer, x, layer(x)).detach()
        scaled = body(HebbianPCA, layer, (7,), options)
        size = float(sum((row**2).sum() for row in x)) / len(x)
        found = scaled.change(0, layer, x, layer(x)).detach() * size
        yield Check(f"relative times <||x||^2>, {options['update']}", apart(found, whole), 1e-12)


def lateral_pca_equals_loops() -> Iterator[Check]:
    """One step of both weights against a plain loop over samples and units."""
    for name, layer, shape in layers():
        x = batch(shape)
        for options in LATERAL:
            rule = body(LateralPCA, layer, shape, {"relative": False, **options})
            lateral = rule.net[0].norm
            assert isinstance(lateral, nets.Lateral)
            noise = 0.2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
            m = torch.eye(4, dtype=torch.float64) + (noise.tril(-1) if lateral.ordered else noise @ noise.T)
            lateral.weight.data = m.clone()
            w = layer.weight.detach().flatten(1).clone()
            dw, dm = looped_lateral(w, m, seen(layer, x), options["update"])
            rule.absorb(x)
            found = (layer.weight.detach().flatten(1) - w) / RATE
            yield Check(f"{name}, {options['update']}: change of W", apart(found, dw), 1e-12)
            found = (lateral.weight.detach() - m) / RATE
            yield Check(f"{name}, {options['update']}: change of M", apart(found, dm), 1e-12)


def ica_equals_loops() -> Iterator[Check]:
    """One step against a plain loop over samples, with rows made orthonormal by another method."""
    for name, layer, shape in layers():
        x = batch(shape)
        for options in ICA:
            rule = body(HebbianICA, layer, shape, options)
            assert isinstance(rule, HebbianICA)
            rule._seen.add(0)  # six samples are not white
            w = layer.weight.detach().flatten(1).clone()
            expected = w + RATE * looped_ica(w, seen(layer, x), **options)
            if options["update"] == "one-unit":
                expected = by_rows(expected) if "orthogonal" in options else by_singular_values(expected)
            rule.absorb(x)
            error = apart(layer.weight.detach().flatten(1), expected)
            yield Check(f"{name}, {', '.join(map(str, options.values()))}: weights", error, 1e-11)


def by_singular_values(w: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows."""
    left, _, right = torch.linalg.svd(w, full_matrices=False)
    nearest: Tensor = left @ right
    return nearest


def by_rows(w: Tensor) -> Tensor:
    """Each row less its shadow on those before it, at length 1."""
    rows: list[Tensor] = []
    for row in w:
        for other in rows:
            row = row - (row @ other) * other
        rows.append(row / row.norm())
    return torch.stack(rows)


def products_equal_autograd() -> Iterator[Check]:
    """<y x^T> on patches, strides and paddings included, against autograd of the mean of y times what units give."""
    for name, layer, shape in layers():
        layer = layer.double()
        x = batch(shape)
        y = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        places = y[0, 0].numel()
        (expected,) = torch.autograd.grad((layer(x) * y).sum() / (len(x) * places), layer.weight)
        found = product(layer, y, x)
        yield Check(f"{name}: autograd of the surrogate", apart(found, expected), 1e-13)
        rows = torch.stack(seen(layer, x))
        units = y if y.dim() == 2 else y.movedim(1, -1).flatten(0, -2)
        yield Check(f"{name}: product with patches cut out", apart(found.flatten(1), units.T @ rows / len(rows)), 1e-13)


def readouts_equal_closed_forms() -> Iterator[Check]:
    """Ridge, class means and the delta rule against closed forms and loops over all the data."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=draw, dtype=torch.float64), torch.randint(3, (60,), generator=draw)
    target = torch.eye(3, dtype=torch.float64)[y]
    for kind in ("ridge", "class-mean", "delta"):
        net = nn.Sequential(nets.Block(nn.Linear(5, 5).double(), activation=nn.Identity())).requires_grad_(False)
        sgd = partial(torch.optim.SGD, lr=RATE)
        rule = HebbianPCA(net, Problem((5,), 3), readout=kind, penalty=0.1, inputs="as they are", optimizer=sgd)
        z = net(x).detach()
        rule.progress = 1.0  # features have stopped to change: nothing is forgotten
        w, b = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for start in range(0, 60, 20):
            rule.step(x[start : start + 20], y[start : start + 20])
            error = torch.zeros(3, 6, dtype=torch.float64)
            for row, wanted in zip(z[start : start + 20], target[start : start + 20], strict=True):
                error += torch.outer(w @ row + b - wanted, torch.cat([row, torch.ones(1, dtype=torch.float64)])) / 20
            w, b = w - RATE * error[:, :5], b - RATE * error[:, 5]
        rule.finish()
        if kind == "ridge":
            away = z - z.mean(0)
            size = away.square().mean()
            # Ridge as least squares on data with rows of the penalty below them.
            rows = torch.cat([away, (60 * 0.1 * size) ** 0.5 * torch.eye(5, dtype=torch.float64)])
            wanted = torch.cat([target - target.mean(0), torch.zeros(5, 3, dtype=torch.float64)])
            w = torch.linalg.lstsq(rows, wanted).solution.T
            b = target.mean(0) - w @ z.mean(0)
        elif kind == "class-mean":
            w = torch.stack([z[y == c].mean(0) for c in range(3)])
            b = -w.square().sum(1) / 2
        head = rule.head
        assert head is not None
        yield Check(f"{kind}: weight", apart(head.layer.weight.detach(), w), 1e-11)
        yield Check(f"{kind}: bias", apart(head.layer.bias.detach(), b), 1e-11)
