"""Competitive learning against samples one by one, surrogates, k-means, and the fixed points that the papers prove."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.rule import Problem
from altprop.rules.hebbian.bcm import BCM
from altprop.rules.hebbian.competition import Competitive
from altprop.rules.hebbian.competitive import CompetitiveLearning
from altprop.rules.hebbian.krotov_hopfield import KrotovHopfield
from altprop.rules.hebbian.patches import Layer
from altprop.rules.hebbian.soft_hebb import SoftHebb
from altprop.rules.hebbian.soft_wta import SoftWTA

LAYERS: dict[str, dict[str, Any]] = {
    "linear": {},
    "convolution": {"kernel_size": 3},
    "convolution, stride 2, padding 1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "convolution, reflect padding, dilation 2": {
        "kernel_size": 3,
        "padding": 2,
        "padding_mode": "reflect",
        "dilation": 2,
    },
}
R = TypeVar("R", bound=Competitive)
Naive = Callable[[Tensor, Tensor], Tensor]
"""From weights (units, inputs) and patches (patches, inputs) to the change, one patch after another."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def subject(kind: type[R], layer: Layer, size: tuple[int, ...], **options: Any) -> tuple[R, Layer, Tensor]:
    """A rule on one layer without activation, in float64, and a batch."""
    net = nn.Sequential(nets.Block(layer, activation=nn.Identity(), pool=nn.Flatten())).double()
    rule = kind(net, Problem(size, 3), optimizer=partial(torch.optim.SGD, lr=1.0), decay=False, settle=2.0, **options)
    return rule, layer, draw(7, *size, seed=1)


def made(arguments: dict[str, Any]) -> tuple[Layer, tuple[int, ...]]:
    layer = nn.Conv2d(2, 5, bias=False, **arguments) if arguments else nn.Linear(6, 5, bias=False)
    with torch.no_grad():
        layer.weight.copy_(draw(*layer.weight.shape, seed=2))
    return layer, (2, 7, 8) if arguments else (6,)


def patches(layer: Layer, x: Tensor) -> Tensor:
    """What each unit sees, one row a patch, cut out by `unfold`."""
    if isinstance(layer, nn.Linear):
        return x
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, [int(p) for p in layer.padding for _ in range(2)], mode=mode)
    kernel, stride, dilation = (tuple(int(n) for n in v) for v in (layer.kernel_size, layer.stride, layer.dilation))
    return unfold(x, kernel, dilation=dilation, stride=stride).movedim(1, 2).flatten(0, 1)


def against(kind: type[Competitive], naive: Naive, says: str, **options: Any) -> Iterator[Check]:
    """The rule's change, and the naive one, for every kind of layer."""
    for name, arguments in LAYERS.items():
        rule, layer, x = subject(kind, *made(arguments), **options)
        with torch.no_grad():
            found = rule.change(0, layer, x, layer(x)).flatten(1)
            expected = naive(layer.weight.flatten(1), patches(layer, x))
        yield Check(f"{says}, {name}", apart(found, expected), 1e-12)


def one_by_one(y_of: Callable[[Tensor, Tensor], Tensor], drawn_by: Callable[[Tensor, Tensor], Tensor]) -> Naive:
    """The sum over patches of y_k (x - drawn_k w_k), in a loop; divided by their number."""

    def naive(w: Tensor, x: Tensor) -> Tensor:
        change = torch.zeros_like(w)
        for sample in x:
            change += y_of(w, sample)[:, None] * (sample - drawn_by(w, sample)[:, None] * w)
        return change / len(x)

    return naive


def dot(w: Tensor, x: Tensor) -> Tensor:
    return w @ x


def one(w: Tensor, x: Tensor) -> Tensor:
    return torch.ones_like(w[:, 0])


def cosine(w: Tensor, x: Tensor) -> Tensor:
    angle: Tensor = (w @ x) / (w.norm(dim=1) * x.norm())
    return (1 + angle).square() / 4


def distance(w: Tensor, x: Tensor) -> Tensor:
    return (x - w).square().sum(1) / -2


def soft(w: Tensor, x: Tensor) -> Tensor:
    return torch.softmax(0.7 * (w @ x), 0)


def signed(w: Tensor, x: Tensor) -> Tensor:
    r = soft(w, x)
    return torch.where(hard(w, x).bool(), r, -r)


def hard(w: Tensor, x: Tensor) -> Tensor:
    return hot(w @ x)


def hot(s: Tensor, k: int = 1) -> Tensor:
    found = torch.zeros_like(s)
    found[s.sort(descending=True).indices[:k]] = 1.0
    return found


def soft_hebb_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops, divided and scaled as the papers say."""

    kinds: dict[str, Naive] = {"soft": soft, "signed": signed, "hard": hard}
    for competition, y_of in kinds.items():
        for normalise in ("layer", "unit"):

            def naive(w: Tensor, x: Tensor, y_of: Naive = y_of, unit: bool = normalise == "unit") -> Tensor:
                change = one_by_one(y_of, dot)(w, x)
                sizes = change.abs().amax(1, keepdim=True) if unit else change.abs().max()
                rates: Tensor = (w.norm(dim=1, keepdim=True) - 1).abs().sqrt()
                return rates * change / sizes.clamp_min(1e-300)

            options: dict[str, Any] = {"competition": competition, "normalise": normalise}
            options["inverse_temperature"] = 0.7
            yield from against(SoftHebb, naive, f"{competition}, by {normalise}", **options)


def competitive_learning_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops, for each similarity, competition and pull."""

    similarities: dict[str, Naive] = {"dot": dot, "cosine": cosine, "distance": distance}
    for name, s in similarities.items():

        def two_best(w: Tensor, x: Tensor, s: Naive = s) -> Tensor:
            return hot(s(w, x), 2)

        def shares(w: Tensor, x: Tensor, s: Naive = s) -> Tensor:
            return torch.softmax(3.0 * s(w, x), 0)

        for pull, drawn in (("instar", one), ("oja", dot)):
            options: dict[str, Any] = {"similarity": name, "pull": pull, "average": "patches"}
            says = f"{name}, two winners, {pull}"
            yield from against(CompetitiveLearning, one_by_one(two_best, drawn), says, winners=2, **options)
            options |= {"competition": "soft", "inverse_temperature": 3.0}
            yield from against(CompetitiveLearning, one_by_one(shares, drawn), f"{name}, soft, {pull}", **options)


def averages_of_competitive_learning_equal_samples_one_by_one() -> Iterator[Check]:
    """Means over what each unit won, in this batch or ever, and thresholds, in plain loops over two batches."""
    for average in ("wins", "history"):
        for name, arguments in LAYERS.items():
            options: dict[str, Any] = {"average": average, "homeostasis": 0.5, "similarity": "distance"}
            rule, layer, x = subject(CompetitiveLearning, *made(arguments), **options)
            layer.weight.data[4] += 10.0  # too far to win anything
            w, thresholds, ever = layer.weight.detach().flatten(1).clone(), torch.zeros(5).double(), [0] * 5
            for inputs in (x, 0.7 * x.flip(0) + 0.1):
                won: list[list[Tensor]] = [[] for _ in range(5)]
                rows = patches(layer, inputs)
                for sample in rows:
                    won[int((distance(w, sample) - thresholds).argmax())].append(sample)
                for k, mine in enumerate(won):
                    ever[k] += len(mine)
                    size = len(mine) if average == "wins" else ever[k]
                    if mine:
                        w[k] += torch.stack([sample - w[k] for sample in mine]).sum(0) / size
                    thresholds[k] += 0.5 * (len(mine) / len(rows) - 1 / 5)
                rule.absorb(inputs)
            yield Check(f"{average}, {name}: weights", apart(layer.weight.detach().flatten(1), w), 1e-12)
            found = rule.get_buffer("thresholds_0")
            yield Check(f"{average}, {name}: thresholds", apart(found, thresholds), 1e-12)
            yield Check(f"{average}, {name}: wins of a unit that is far away", float(ever[4]), 0.0)


def competitive_learning_equals_its_surrogate() -> Iterator[Check]:
    """Its change, and autograd of Miconi's surrogate: half the squared response whose value is overwritten."""
    for name, arguments in LAYERS.items():
        for pull in ("instar", "oja"):
            options: dict[str, Any] = {"similarity": "dot", "pull": pull, "average": "patches"}
            rule, layer, x = subject(CompetitiveLearning, *made(arguments), **options)
            u = layer(x)
            y = torch.zeros_like(u).scatter_(1, u.argmax(1, keepdim=True), 1.0)
            squares = layer.weight.flatten(1).square().sum(1).view(-1, *[1] * (u.dim() - 2)) / 2
            response = u - squares * (1.0 if pull == "instar" else u.detach())
            overwritten = response + (y - response).detach()
            (gradient,) = torch.autograd.grad(overwritten.square().sum() / 2, layer.weight)
            with torch.no_grad():
                found = rule.change(0, layer, x, u.detach())
            yield Check(f"{pull}, {name}", apart(found, gradient * u.shape[1] / u.numel()), 1e-12)


def winner_take_all_is_k_means() -> Iterator[Check]:
    """Online k-means, one sample at a time, on six clusters, and their centroids by Lloyd's algorithm."""
    centres = 4.0 * torch.eye(6, 8, dtype=torch.float64)
    x = torch.cat([c + 0.1 * draw(50, 8, seed=i) for i, c in enumerate(centres)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first = torch.stack([x[50 * i] for i in range(6)])
    layer = with_weights(first)
    rule, _, _ = subject(CompetitiveLearning, layer, (8,), average="history")
    for i in order.tolist():
        rule.absorb(x[i : i + 1])
    centroids = first
    for _ in range(20):
        nearest = torch.cdist(x, centroids).argmin(1)
        centroids = torch.stack([x[nearest == k].mean(0) for k in range(6)])
    yield Check("weights, and centroids", apart(layer.weight.detach(), centroids), 1e-12)
    yield Check("patches that each unit won, and 50", float((rule.wins(0) - 50).abs().max()), 0.0)


@torch.no_grad()
def settled(rule: Competitive, batches: Callable[[int], Tensor], steps: int) -> None:
    """Train the body, with its rate falling to zero."""
    rule.decay = True
    for step in range(steps):
        rule.progress = 2.0 * step / steps
        rule.absorb(batches(step))


def clusters(step: int, size: int = 64) -> Tensor:
    """Samples of twelve well-separated directions."""
    g = torch.Generator().manual_seed(1000 + step)
    centres: Tensor = 3.0 * torch.linalg.qr(draw(16, 16, seed=5)).Q[:12]
    labels = torch.randint(12, (size,), generator=g)
    noise = torch.randn(size, 16, generator=g, dtype=torch.float64)
    return 0.1 * noise + centres[labels]


def norms_of_soft_hebb_come_to_one() -> Iterator[Check]:
    """Norms of weights after learning twelve clusters with 20 units, and what no step may break."""
    for start in (0.2, 5.0):
        layer = on_sphere(20, 16, start)
        rule, _, _ = subject(SoftHebb, layer, (16,), competition="soft", inverse_temperature=1.0, power=0.5)
        rule.optimizers["blocks.0"].param_groups[0]["lr"] = 0.3
        settled(rule, clusters, 1000)
        error = float((layer.weight.detach().norm(dim=1) - 1).abs().max())
        yield Check(f"norms and 1, soft, from {start}", error, 1e-3)
    for seed in (3, 4):
        layer = on_sphere(20, 16, 5.0, seed)
        rule, _, _ = subject(SoftHebb, layer, (16,), competition="signed", inverse_temperature=1.0)
        rule.optimizers["blocks.0"].param_groups[0]["lr"] = 0.3
        settled(rule, clusters, 1500)
        w = layer.weight.detach()
        cosines = nn.functional.normalize(w) @ torch.linalg.qr(draw(16, 16, seed=5)).Q[:12].T
        winning = torch.bincount((clusters(0, 512) @ w.T).argmax(1), minlength=20) > 0
        error = float((w.norm(dim=1) - 1).abs()[winning].max())
        yield Check(f"norms of winners and 1, signed, start {seed}", error, 1e-2)
        nearest = float(cosines.amax(0).min())
        yield Check(f"least cosine of a cluster with its nearest unit, signed, start {seed}", nearest, 0.9, "at least")


def on_sphere(units: int, inputs: int, norm: float, seed: int = 3) -> nn.Linear:
    return with_weights(norm * nn.functional.normalize(draw(units, inputs, seed=seed)))


def with_weights(w: Tensor) -> nn.Linear:
    layer = nn.Linear(w.shape[1], w.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(w)
    return layer


def invariants_of_soft_hebb() -> Iterator[Check]:
    """Responsibilities sum to one, a large t is a hard competition, and steps keep their bound."""
    x = clusters(0)
    for t in (1.0, 1e6):
        rule, layer, _ = subject(SoftHebb, on_sphere(20, 16, 3.0), (16,), competition="soft", inverse_temperature=t)
        y = rule.activities(0, layer(x)).detach()
        yield Check(f"sum of responsibilities and 1, t = {t:g}", float((y.sum(1) - 1).abs().max()), 1e-12)
    yield Check(
        "responsibilities at t = 1e6, and one-hot winners", apart(y, torch.stack([hot(u) for u in layer(x)])), 1e-100
    )
    for norm in (3.0, 1.0):
        rule, layer, _ = subject(SoftHebb, on_sphere(20, 16, norm), (16,), power=0.5)
        with torch.no_grad():
            step = float(rule.change(0, layer, x, layer(x)).abs().max())
        yield Check(f"largest step and |norm - 1|^p at length {norm:g}", abs(step - (norm - 1) ** 0.5), 1e-7)
    r = nn.functional.softmax(1e3 * draw(64, 20), 1)
    rule, layer, _ = subject(SoftHebb, on_sphere(20, 16, 1.0), (16,), competition="soft", inverse_temperature=1e3)
    small = torch.finfo(torch.float64).tiny
    denormal = float((rule.activities(0, draw(64, 20)) < small).double().mean())
    yield Check("share of denormal responsibilities", denormal, 0.0)
    yield Check("the same of a plain softmax", float((r < small).double().mean()), 0.1, "at least", control=True)


def krotov_hopfield_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops; without unlearning, and Oja's winner-take-all."""
    for norm, losers in ((2.0, "free"), (3.0, "free"), (3.0, "sphere")):

        def naive(w: Tensor, x: Tensor, norm: float = norm, losers: str = losers) -> Tensor:
            change = torch.zeros_like(w)
            for sample in x:
                q = torch.stack([(v.sign() * v.abs() ** (norm - 1) * sample).sum() for v in w])
                first, _, third = q.sort(descending=True).indices[:3].tolist()
                change[first] += sample - q[first] * w[first]
                size = (w[third].abs() ** norm).sum() if losers == "sphere" else 1.0
                change[third] -= 0.3 * (sample - q[third] * w[third] / size)
            return change / change.abs().max()

        options = {"norm": norm, "losers": losers, "rank": 3, "delta": 0.3}
        yield from against(KrotovHopfield, naive, f"norm {norm:g}, losers {losers}", **options)

    def plain(w: Tensor, x: Tensor) -> Tensor:
        change = one_by_one(lambda w, x: hot(w @ x), dot)(w, x)
        return change / change.abs().max()

    yield from against(KrotovHopfield, plain, "delta 0, and Oja's winner-take-all", delta=0.0)


def norms_of_krotov_hopfield() -> Iterator[Check]:
    """The p-norm of units that win comes to 1; that of a unit that only unlearns stays, or grows without bound."""
    for norm in (2.0, 3.0):
        yield from unlearning(norm)
        layer = on_sphere(20, 16, 1.5)
        rule, _, _ = subject(KrotovHopfield, layer, (16,), norm=norm)
        rule.optimizers["blocks.0"].param_groups[0]["lr"] = 0.05
        settled(rule, clusters, 1000)
        w = layer.weight.detach()
        sums = w.abs().pow(norm).sum(1)
        q = clusters(0, 512) @ (w.sign() * w.abs().pow(norm - 1)).T
        winning = torch.bincount(q.argmax(1), minlength=20) > 5
        yield Check(f"sum of |w|^{norm:g} of winners, and 1", float((sums[winning] - 1).abs().max()), 2e-2)


def unlearning(norm: float) -> Iterator[Check]:
    """How the p-norm of a unit that only unlearns changes by a sample."""
    w = on_sphere(5, 16, 2.0).weight.detach()
    x = nn.functional.normalize(w[0] + w[1], dim=0)[None]  # which wins between its two nearest units
    along = w.sign() * w.abs() ** (norm - 1)
    loser = int((x @ along.T).topk(2).indices[0, 1])
    for losers in ("sphere", "free"):
        rule, layer, _ = subject(KrotovHopfield, on_sphere(5, 16, 2.0), (16,), losers=losers, norm=norm)
        with torch.no_grad():
            change = rule.change(0, layer, x, layer(x))
        growth = float((along * change).sum(1)[loser])
        if losers == "sphere":
            yield Check(f"growth of a unit that unlearns, |w|^{norm:g}, on the sphere", abs(growth), 1e-12)
        else:
            yield Check(f"growth of a unit that unlearns, |w|^{norm:g}, free", growth, 0.1, "at least", control=True)


def patterns(labels: Tensor, step: int) -> Tensor:
    return torch.eye(2, dtype=torch.float64)[labels[step]]


def bcm_selects_one_of_two_patterns() -> Iterator[Check]:
    """Of two orthogonal patterns, each half of the time, one is answered by 1 / probability = 2, the other by 0."""
    for seed in range(3):
        layer = with_weights(0.5 + 0.1 * draw(1, 2, seed=seed))
        options = {"competition": "none", "normalise": False, "memory": 0.8}
        rule, _, _ = subject(BCM, layer, (2,), **options)
        rule.optimizers["blocks.0"].param_groups[0]["lr"] = 0.03
        labels = torch.randint(2, (2500, 8), generator=torch.Generator().manual_seed(seed))
        settled(rule, partial(patterns, labels), len(labels))
        low, high = sorted(layer.weight.flatten().tolist())
        yield Check(f"the larger response and 2, seed {seed}", abs(high - 2.0), 0.1)
        yield Check(f"the smaller response and 0, seed {seed}", abs(max(low, 0.0)), 0.05)


def bcm_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and the sum over patches and units in plain loops."""
    for competition, normalise in (("none", False), ("hard", False), ("hard", True)):

        def naive(w: Tensor, x: Tensor, hard: bool = competition == "hard", unit: bool = normalise) -> Tensor:
            y = torch.stack([(w @ v).clamp_min(0.0) * (hot(w @ v) if hard else 1.0) for v in x])
            theta = (y**2).mean(0)
            change = torch.zeros_like(w)
            for sample, response in zip(x, y, strict=True):
                for k in range(len(w)):
                    change[k] += response[k] * (response[k] - theta[k]) * sample
            return change / change.abs().max() if unit else change / len(x)

        says = f"competition {competition}{', normalised' if normalise else ''}"
        yield from against(BCM, naive, says, competition=competition, normalise=normalise)


def soft_winner_take_all_equals_samples_one_by_one() -> Iterator[Check]:
    """Its change, and what the winners of all columns leave unexplained of each sample, in plain loops."""
    for columns in (1, 3):
        layer = with_weights(draw(6, 8, seed=2))
        net = nn.Sequential(nets.Block(layer, activation=nn.Identity()))
        sgd = partial(torch.optim.SGD, lr=1.0)
        rule = SoftWTA(net, Problem((8,), 3), columns=columns, inverse_temperature=4.0, optimizer=sgd)
        x, w = draw(7, 8, seed=1), layer.weight.detach().clone()
        rows = [(sample - sample.mean()) / (sample - sample.mean()).norm() for sample in x]
        answers = []
        for sample in rows:
            u = w @ sample
            shares = torch.cat([torch.softmax(4.0 * column, 0) for column in u.chunk(columns)])
            answers.append(shares * u.clamp_min(0.0))
        y = torch.stack(answers)
        sizes = torch.stack([sum(row[k] * row.sum() for row in y) for k in range(6)])
        change = torch.zeros_like(w)
        for sample, row in zip(rows, y, strict=True):
            left = sample - sum(row[j] * w[j] for j in range(6))
            for k in range(6):
                change[k] += row[k] * left / (sizes[k] + sizes.mean())
        rule.block(0, x, rate=1.0)
        yield Check(f"{columns} columns: change", apart(layer.weight.detach() - w, change), 1e-12)
