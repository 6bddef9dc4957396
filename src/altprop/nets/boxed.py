"""A perceptron on hardware that nobody can look into: a box behind every hidden block, or noise in every product."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altprop.errors import UsageError
from altprop.nets.analogue import NoisyLinear
from altprop.nets.black_box import BlackBox
from altprop.nets.block import Block
from altprop.nets.boxes import Copies, Stochastic, binary, distorted, quantised, table
from altprop.nets.curves import Curves
from altprop.nets.mlp import mlp

BOXES = ("distorted", "table", "quantised", "binary", "stochastic", "noisy")
DERIVATIVES = ("none", "straight-through", "fitted")
SEEDS = 2**40


def boxed(
    widths: Sequence[int],
    *,
    box: str = "distorted",
    strength: float = 0.5,
    derivative: str = "none",
    copies: Sequence[int] = (0, 0),
    generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Sequential:
    """The net of `mlp`, with its weights, on hardware; at strength 0 it computes the same.

    Each hidden block is followed by a box, a block of its own. With "noisy" there are no boxes: all layers, that of the
    output too, are `NoisyLinear`.

    Arguments:
        widths, generator, options: as in `mlp`; what the hardware draws is drawn after the weights.
        box: "distorted" (a curve of its own for each unit), "table", "quantised", "binary" or "stochastic" (see
            `nets.boxes`), or "noisy" (on every product).
        strength: of the distortion or noise; for the others the distance of the values that are left.
        derivative: "none" (refused), "straight-through" (that of the identity) or "fitted" (that of `Curves`).
        copies: the copy of the hardware that it is trained on, and the one that it predicts on, as numbers; of
            "distorted" and "table" no two are alike.
    """
    _check(box, derivative, copies)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    net = mlp(widths, generator=generator, **options)
    seeds = torch.randint(SEEDS, (len(net),), generator=generator, device="cpu").tolist()
    straight = derivative == "straight-through"
    if box == "noisy":
        for block, seed in zip(net, seeds, strict=True):
            assert isinstance(block, Block) and isinstance(block.affine, nn.Linear)
            block.affine = NoisyLinear(block.affine, strength, seed, straight_through=straight)
        return net
    blocks = list(net)
    for i, units in reversed(list(enumerate(widths[1:]))):
        fn = on_copies(box, strength, units, seeds[i], copies)
        model = Curves(units) if derivative == "fitted" else None
        blocks.insert(i + 1, BlackBox(fn, straight_through=straight, model=model))
    return nn.Sequential(*blocks)


def on_copies(box: str, strength: float, units: int, seed: int, copies: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The box's function, on one copy of the hardware or on two."""
    trained, other = (function(box, strength, units, seed + copy) for copy in copies)
    return trained if copies[0] == copies[1] else Copies(trained, other)


def function(box: str, strength: float, units: int, seed: int) -> Callable[[Tensor], Tensor]:
    """What a box does."""
    generator = torch.Generator().manual_seed(seed)
    if box == "distorted":
        return distorted(strength, units, generator)
    if box == "table":
        return table(strength, generator)
    if box == "stochastic":
        return Stochastic(strength, seed)
    return {"quantised": quantised, "binary": binary}[box](strength)


def _check(box: str, derivative: str, copies: Sequence[int]) -> None:
    if box not in BOXES:
        raise UsageError(f"box={box!r} is not known; choose one of {', '.join(BOXES)}")
    if derivative not in DERIVATIVES:
        raise UsageError(f"derivative={derivative!r} is not known; choose one of {', '.join(DERIVATIVES)}")
    if box == "noisy" and derivative == "fitted":
        raise UsageError(
            "box='noisy' with derivative='fitted': the noise has no mean, and a fitted model would be the layer "
            "itself; take derivative='straight-through'"
        )
    allowed = len(set(copies)) == 1 or box in ("distorted", "table")
    if len(copies) != 2 or not all(isinstance(copy, int) for copy in copies) or not allowed:
        raise UsageError(
            f"copies={tuple(copies)} with box={box!r}: give two whole numbers, and two that differ only for "
            "'distorted' and 'table', of which no two copies are alike"
        )
