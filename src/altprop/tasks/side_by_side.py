"""Tuples: images of a task side by side, and the number that their classes make; many classes out of few.

Two digits are a problem of 100 classes, three one of 1,000.
"""

from collections.abc import Sequence

import numpy as np
import torch

from altprop.errors import UsageError
from altprop.tasks.catalogue import TUPLES
from altprop.tasks.task import SPLITS, Split, Task, divided

SAMPLES = (200_000, 10_000, 10_000)
# Part of the protocol: another seed is another task.
DRAWING_SEED = 20240229


def tuples(task: Task, count: int, samples: Sequence[int] = SAMPLES) -> Task:
    """Another task, "<name>-pairs" or "<name>-triples": `count` images beside each other, each drawn at random from the
    same split of `task`, with replacement.

    samples: of train, validation and test. The class of the images' classes c_1, c_2, ... from left to right is the
    number with these digits, to the base of the task's classes. Raises UsageError where the inputs are no images.
    """
    if count < 2 or len(samples) != len(SPLITS) or min(samples) < 1:
        raise UsageError(f"tuples of {count} with {samples} samples: take 2 or more, and three positive numbers")
    task = task.images()
    generator = torch.Generator().manual_seed(DRAWING_SEED)
    splits = {
        name: drawn(getattr(task, name), count, task.classes, n, generator)
        for name, n in zip(SPLITS, samples, strict=True)
    }
    words = [""]
    for _ in range(count):
        words = [f"{word} {name}".strip() for word in words for name in task.names]
    kind = {number: word for word, number in TUPLES.items()}.get(count, f"tuples-of-{count}")
    return divided(f"{task.name}-{kind}", splits, tuple(words), task.note)


def drawn(part: Split, count: int, classes: int, samples: int, generator: torch.Generator) -> Split:
    """So many tuples of a split's images, (samples, channels, height, count * width)."""
    rows = torch.randint(len(part), (samples, count), generator=generator).numpy()
    *before, width = part.x.shape[1:]
    x = np.empty((samples, *before, count * width), dtype=part.x.dtype)
    y = np.zeros(samples, dtype=np.int64)
    for place in range(count):
        x[..., place * width : (place + 1) * width] = part.x[rows[:, place]]
        y = y * classes + part.y[rows[:, place]]
    return Split(x, y, part.scale)
