"""Schedules: from a run's progress in [0, 1] to a factor for every learning rate."""

import math


def constant(progress: float) -> float:
    """1 all the way."""
    return 1.0


def hold_then_fall(progress: float) -> float:
    """1 for the first half, then a straight line to 0 (Hinton 2022's cool-down)."""
    return min(1.0, 2.0 * (1.0 - progress))


def fall(progress: float) -> float:
    """A straight line from 1 to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
