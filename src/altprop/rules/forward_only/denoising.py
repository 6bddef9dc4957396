"""A noise schedule in discrete time, and the Gaussian algebra that goes with it.

Li, Teh & Pascanu 2025 (arXiv 2503.24322); the cosine is Nichol & Dhariwal's 2021 (arXiv 2102.09672). Time runs from
noise to signal, t = 0..T. With the signal s_t, the square of what is left of u, and r_t = s_t / s_{t+1}:

    z_T = sqrt(s_T) u + sqrt(1 - s_T) noise,    z_t = sqrt(r_t) z_{t+1} + sqrt(1 - r_t) noise
    z_t | u           is N(sqrt(s_t) u, 1 - s_t)
    z_t | z_{t-1}, u  is N(a_t u + b_t z_{t-1}, c_t),   t = 1..T
"""

import math
from itertools import pairwise
from typing import NamedTuple

OFFSET = 0.008
"""Nichol & Dhariwal's offset: a little noise is left at the end, so that no ratio of signal to noise is infinite."""


class Step(NamedTuple):
    """From z_{t-1} to z_t: the mean a u + b z_{t-1}, the variance c, and by how much signal / noise rises."""

    a: float
    b: float
    c: float
    rise: float


def cosine_signal(steps: int) -> list[float]:
    """s_0, ..., s_T for T steps: a squared cosine from 0, where z is nothing but noise, to nearly 1."""
    angles = (((steps - t) / steps + OFFSET) / (1 + OFFSET) * math.pi / 2 for t in range(steps + 1))
    return [math.cos(angle) ** 2 for angle in angles]


def denoising_steps(signal: list[float]) -> list[Step]:
    """The steps t = 1..T of a schedule."""
    found = []
    for before, after in pairwise(signal):
        lost = 1 - before / after  # 1 - r_{t-1}
        a = math.sqrt(after) * lost / (1 - before)
        b = math.sqrt(before / after) * (1 - after) / (1 - before)
        c = (1 - after) * lost / (1 - before)
        found.append(Step(a, b, c, after / (1 - after) - before / (1 - before)))
    return found
