"""The authors' settings of deep SoftHebb (Journé et al. 2023, arXiv 2209.11883), as in their published code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """What each convolution has: channels, t, the rate, its kernel, the power of its triangles, its pool; and p, and
    how units compete.

    Kernels and pools are those of `altprop.nets.soft_hebb`.
    """

    channels: tuple[int, ...]
    inverse_temperature: tuple[float, ...]
    rates: tuple[float, ...]
    kernels: tuple[int, ...]
    powers: tuple[float, ...]
    pools: tuple[str, ...]
    power: float = 0.5
    competition: str = "signed"


PRESETS = {
    "cifar-1": Preset((96,), (1.0,), (0.08,), (5,), (0.7,), ("avg",)),
    "cifar-2": Preset((96, 384), (1.0, 0.65), (0.08, 0.005), (5, 3), (0.7, 1.4), ("avg", "max")),
    "cifar": Preset(
        (96, 384, 1536), (1.0, 0.65, 0.25), (0.08, 0.005, 0.01), (5, 3, 3), (0.7, 1.4, 1.0), ("max", "max", "half")
    ),
    "cifar-hard": Preset(  # t plays no part where one unit wins all
        (96, 384, 1536),
        (1.0, 1.0, 1.0),
        (0.05, 0.05, 0.05),
        (5, 3, 3),
        (1.0, 1.0, 1.0),
        ("max", "max", "half-max"),
        competition="hard",
    ),
    "stl": Preset(
        (96, 384, 1536), (1.0, 0.65, 0.45), (0.08, 0.005, 0.01), (5, 3, 3), (0.7, 1.4, 1.0), ("avg", "max", "avg")
    ),
    "stl-4": Preset(
        (96, 384, 1536, 6144),
        (1.0, 0.65, 0.45, 0.25),
        (0.08, 0.005, 0.01, 0.01),
        (5, 3, 3, 3),
        (0.7, 0.7, 1.4, 1.0),
        ("avg", "max", "avg", "half"),
    ),
    "imagenet": Preset(
        (48, 192, 768, 3072, 12288),
        (1.1, 0.7, 0.5, 0.4, 0.25),
        (0.08, 0.01, 0.01, 0.01, 0.01),
        (5, 3, 3, 3, 3),
        (0.7, 0.7, 0.7, 1.4, 1.0),
        ("max", "max", "max", "max", "half"),
        power=0.75,
    ),
}
