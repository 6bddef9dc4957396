"""From a name to a task: find the files, decode them once, divide them as the protocol says."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from altprop.errors import UsageError
from altprop.tasks import cache, columns, folder, hub, images
from altprop.tasks.catalogue import BUILT_IN, HUB, names, parts_of, suggestion
from altprop.tasks.digits import digits
from altprop.tasks.side_by_side import tuples
from altprop.tasks.task import SPLITS, Split, Task, divided

LOSSY_NOTE = (
    "the images of this copy went through JPEG: near the originals, not equal to them; "
    "do not put these numbers beside published ones"
)
VALIDATION_SHARE = 6  # where a data set has no validation part, the last sixth of train: MNIST's last 10,000


def load(name: str, *, path: str | Path | None = None, image: str | None = None, label: str | None = None) -> Task:
    """The task with this name, decoded into the cache the first time and memory-mapped afterwards.

    name: "digits" (built in), a short name (see `names()`), one of these with "-pairs" or "-triples" at its end
        (`tuples`), a folder, or a data set's hub id, "owner/name".
    path: the data set's folder; it wins over everything else. Without it: the folder `name` in the one that
    ALTPROP_DATA names, then `name` itself as a folder (short names apart), then the hub.
    image, label: the columns' names, needed unless there is exactly one Image and one ClassLabel column.

    Raises UsageError where the data set is not found, cannot be read, or is no image classification.
    """
    if name == BUILT_IN:
        if (path, image, label) != (None, None, None):
            raise UsageError(f"{name!r} is built in and takes no path, image or label: choose another name")
        return digits()
    if path is None and (tuple_of := parts_of(name)) is not None:
        base, count = tuple_of
        return tuples(load(base, image=image, label=label), count)
    source = _find(name, path)
    key = cache.key_of_folder(source, image, label)
    stored = cache.read(key)
    if stored is None:
        _decode(source, key, image, label)
        stored = cache.read(key)
    if stored is None:
        raise UsageError(f"the cache folder {cache.root()} does not keep what is written: set ALTPROP_CACHE")
    known = name in HUB or name in HUB.values()
    return _task(name.rstrip("/").rpartition("/")[2], *stored, lossless=known)


def _find(name: str, path: str | Path | None) -> Path:
    """The folder that holds the data set's files, fetched from the hub if need be."""
    if path is not None:
        return _existing(Path(path).expanduser(), name)
    if not name.strip():
        raise UsageError(f"a task needs a name: one of {', '.join(names())}, a folder, or a hub id owner/name")
    looked = "ALTPROP_DATA is not set"
    if data := os.environ.get("ALTPROP_DATA"):
        if (here := Path(data) / name).is_dir():
            return here
        looked = f"looked for the folder {here}"
    if name in HUB:
        return hub.fetch(HUB[name], looked)
    here = Path(name).expanduser()
    if here.is_dir():
        return here
    if name.startswith((".", "~", "/")) or name.count("/") > 1 or here.exists():
        return _existing(here, name)
    if "/" not in name:
        raise UsageError(
            f"unknown task {name!r}{suggestion(name)}: known are {', '.join(names())}, a folder of parquet "
            f"files, and any data set of the hub as owner/name; {looked}"
        )
    return hub.fetch(name, looked)


def _existing(here: Path, name: str) -> Path:
    if not here.is_dir():
        what = "is a file, not a folder" if here.exists() else "does not exist"
        raise UsageError(f"task {name!r}: {here} {what}; give the folder that holds the parquet files")
    return here


def _decode(source: Path, key: str, image: str | None, label: str | None) -> None:
    """Read the source and publish its arrays under `key`."""
    import datasets

    where = str(source)
    with cache.workspace() as making:
        splits = folder.read_splits(source, making / "library")
        features = splits["train"].features
        image, label = columns.choose(features, where, image, label)
        feature = features[label]
        classes = feature.num_classes if isinstance(feature, datasets.ClassLabel) else None
        splits = {part: _undecoded(data, image, where) for part, data in splits.items()}
        common = images.survey(splits, image, where)
        arrays: cache.Arrays = {}
        for part, data in splits.items():
            y = images.labels(data, label, f"{part} of {where}", classes)
            x = cache.new_array(making, f"{part}_x", (len(data), *common[2:3], *common[:2]), np.uint8)
            images.decode(data, image, f"{part} of {where}", x)
            stored_y = cache.new_array(making, f"{part}_y", y.shape, np.int64)
            stored_y[:] = y
            arrays |= {f"{part}_x": x, f"{part}_y": stored_y}
        count = 1 + max(int(a.max()) for part, a in arrays.items() if part.endswith("_y"))
        labelled = [str(i) for i in range(count)] if classes is None else list(feature.names)
        cache.publish(key, making, arrays, {"names": labelled, "lossy": common.lossy})


def _undecoded(data: Any, column: str, where: str) -> Any:
    """The split with its images as stored bytes, so that we and not the library decode them, once."""
    import datasets

    try:
        return data.cast_column(column, datasets.Image(decode=False))
    except Exception as error:  # whatever arrow says when a column of numbers or text is to be images
        reason = str(error).partition("\n")[0]
        raise UsageError(f"column {column!r} of {where} holds no images ({reason}): name another") from None


def _task(name: str, arrays: cache.Arrays, about: dict[str, Any], *, lossless: bool) -> Task:
    """Divide the arrays into the protocol's three splits; lossless: the original is, so that JPEG means a copy."""
    part = {split: (arrays[f"{split}_x"], arrays[f"{split}_y"]) for split in SPLITS if f"{split}_x" in arrays}
    if "validation" not in part:
        x, y = part["train"]
        cut = len(y) - len(y) // VALIDATION_SHARE
        if cut == len(y):
            raise UsageError(
                f"task {name!r} has {len(y)} training samples and no validation split: it needs at least "
                f"{VALIDATION_SHARE} of them, because the last sixth becomes the validation split"
            )
        part |= {"train": (x[:cut], y[:cut]), "validation": (x[cut:], y[cut:])}
    splits = {split: Split(x, y, scale=1 / 255) for split, (x, y) in part.items()}
    classes = tuple(about["names"])
    note = LOSSY_NOTE if lossless and about["lossy"] else ""
    return divided(name, splits, classes, note)
