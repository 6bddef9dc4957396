"""What a data set looks like to the rest of the package: three splits of arrays, read in batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from altprop.errors import UsageError
from altprop.rule import Problem
from altprop.tasks.permutation import order

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set, in memory or memory-mapped.

    x: (n, channels, height, width), or (n, features) after `Task.flat`; uint8 or float32.
    y: (n,) int64, the class of each sample.
    scale: x times scale lies in [0, 1].
    """

    x: Pixels
    y: npt.NDArray[np.int64]
    scale: float

    def __len__(self) -> int:
        return len(self.y)

    def batch(
        self, index: Int64[Tensor, "batch"] | slice
    ) -> tuple[Float32[Tensor, "batch ..."], Int64[Tensor, "batch"]]:
        """The chosen samples as new, contiguous tensors: x in [0, 1], y the classes."""
        rows: Any = index.numpy(force=True) if isinstance(index, Tensor) else index
        x = torch.from_numpy(np.array(self.x[rows], dtype=np.float32)).mul_(self.scale)
        return x, torch.from_numpy(np.array(self.y[rows], dtype=np.int64))

    def fingerprint(self) -> str:
        """SHA-256 of the content: type, shape and values."""
        return sha256(f"{fingerprint(self.x)} {fingerprint(self.y)} {self.scale!r}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Task:
    """A classification problem with its data.

    names: the classes' names; shape: one sample's shape, (channels, height, width) or (features,);
    digest: SHA-256 of the decoded content, wherever it came from; note: what must stand beside this task's
    numbers, empty where there is nothing to say; image: the images' shape, which a flat task still knows; empty where
    the inputs never were images.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    names: tuple[str, ...]
    digest: str
    note: str = ""
    image: tuple[int, ...] = ()

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.train.x.shape[1:]

    @property
    def problem(self) -> Problem:
        return Problem(input_shape=self.shape, outputs=self.classes, kind="classification")

    def flat(self) -> "Task":
        """The same task with every sample as one vector; the arrays are views."""
        return self._each(lambda part: replace(part, x=part.x.reshape(len(part), -1)))

    def images(self) -> "Task":
        """The same task with every sample as an image; the arrays are views. Raises UsageError if they are none."""
        if not self.image:
            raise UsageError(f"the inputs of task {self.name!r} are no images: take a net of the kind mlp")
        return self._each(lambda part: replace(part, x=part.x.reshape(len(part), *self.image)))

    def binary(self) -> "Task":
        """Another task, named "<name>-binary": values above half become 1, all others 0."""
        parts = {name: getattr(self, name) for name in SPLITS}
        parts = {name: Split((part.x > 0.5 / part.scale).astype(np.uint8), part.y, 1.0) for name, part in parts.items()}
        made = divided(f"{self.name}-binary", parts, self.names, self.note)
        return replace(made, image=self.image)

    def _each(self, change: Callable[[Split], Split]) -> "Task":
        return replace(self, train=change(self.train), validation=change(self.validation), test=change(self.test))

    def loader(
        self, split: str = "train", batch_size: int = 128, *, seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, y) of one epoch, a short last one included.

        The train split comes in the protocol's order for (seed, epoch), the others in their natural order.
        Raises UsageError for an unknown split and for a batch size below 1.
        """
        if split not in SPLITS:
            raise UsageError(f"task {self.name!r} has no split {split!r}: take one of {', '.join(SPLITS)}")
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is impossible: take 1 or more")
        part: Split = getattr(self, split)
        rows = order(len(part), seed, epoch) if split == "train" else torch.arange(len(part))
        return (part.batch(rows[i : i + batch_size]) for i in range(0, len(part), batch_size))


def fingerprint(array: npt.NDArray[Any]) -> str:
    """SHA-256 of an array's type, shape and values; the same whether it is in memory or mapped."""
    digest = sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def divided(name: str, splits: dict[str, Split], names: tuple[str, ...], note: str = "") -> Task:
    """The task of these three splits, with its digest: SHA-256 over their content and the classes' names."""
    parts = [f"{split} {splits[split].fingerprint()}" for split in SPLITS]
    digest = sha256("\n".join([*parts, *names]).encode()).hexdigest()
    train, validation, test = (splits[split] for split in SPLITS)
    image = train.x.shape[1:] if train.x.ndim == 4 else ()
    return Task(name, train, validation, test, names, digest, note, image)
