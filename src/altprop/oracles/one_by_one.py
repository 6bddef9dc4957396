"""Changes of competitive rules, written out one patch after another, and small rules to hold against them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from altprop import nets
from altprop.oracles.check import Check, apart
from altprop.rule import Problem
from altprop.rules.hebbian.competition import Competitive
from altprop.rules.hebbian.patches import Layer

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


def on_sphere(units: int, inputs: int, norm: float, seed: int = 3) -> nn.Linear:
    return with_weights(norm * nn.functional.normalize(draw(units, inputs, seed=seed)))


def with_weights(w: Tensor) -> nn.Linear:
    layer = nn.Linear(w.shape[1], w.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(w)
    return layer
