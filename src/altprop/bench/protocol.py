"""The protocol: what makes two rows of the store comparable. Change anything here, and raise VERSION.

Train, validation and test come from `altprop.tasks`; whatever is chosen is chosen on validation. Every rule sees the
same samples in the same order (a permutation from seed and epoch), short last batch included. The clock counts training
steps and `finish` only. The last point is the result, not the best one.
"""

import hashlib
from dataclasses import dataclass

from altprop.errors import UsageError

VERSION = "1.0"
TRAIN_EVALUATED = 10_000
"""Train accuracy is measured on the first so many training samples, in the data set's own order."""

EPOCHS = {"digits": 30}
BATCH_SIZE = {"digits": 32}
WIDTH = {"digits": 128}
DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE, DEFAULT_WIDTH, DEFAULT_DEPTH, DEFAULT_SEEDS = 10, 128, 500, 2, 3


def seed_of(axis: str, seed: int) -> int:
    """Independent seeds for "data", "init" and "rule" from a run's one seed."""
    return int.from_bytes(hashlib.sha256(f"altprop/{axis}/{seed}".encode()).digest()[:6], "big")


def marks(samples: int) -> list[int]:
    """500, 1,000, 2,000, 5,000, ... below `samples`: where points are taken inside the first epoch."""
    found, decade = [], 100
    while decade < samples:
        found += [m for m in (decade, 2 * decade, 5 * decade) if 500 <= m < samples]
        decade *= 10
    return found


@dataclass(frozen=True)
class Budget:
    """How long a run is: exactly one of epochs, samples and seconds of training.

    curve: whether it is evaluated on its way too, or at its start and end only.
    """

    epochs: int | None = None
    samples: int | None = None
    seconds: float | None = None
    curve: bool = True

    def __post_init__(self) -> None:
        given = [v for v in (self.epochs, self.samples, self.seconds) if v is not None]
        if len(given) != 1 or given[0] <= 0:
            raise UsageError("give one positive budget: --epochs N, --samples N or --seconds S")

    def progress(self, samples: int, seconds: float, train_size: int) -> float:
        """How much of the budget is used, in [0, 1]; 1 means that the run is over."""
        if self.seconds is not None:
            return min(1.0, seconds / self.seconds)
        total = self.samples if self.samples is not None else (self.epochs or 0) * train_size
        return min(1.0, samples / total)
