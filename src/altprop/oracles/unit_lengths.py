"""SoftHebb and Krotov and Hopfield's rule, whose weights come to length 1: samples one by one, and fixed points."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from altprop.oracles.check import Check, apart
from altprop.oracles.one_by_one import (
    Naive,
    against,
    clusters,
    dot,
    draw,
    hard,
    hot,
    on_sphere,
    one_by_one,
    settled,
    signed,
    soft,
    subject,
)
from altprop.rules.hebbian.krotov_hopfield import KrotovHopfield
from altprop.rules.hebbian.soft_hebb import SoftHebb


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
