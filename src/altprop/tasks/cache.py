"""Decoded arrays on disk, keyed by the content they were made from, and memory-mapped when read.

One folder an entry: a .npy file an array and `about.json`, which is written last and holds each array's
fingerprint. An entry that does not match it (cut in half, overwritten) is no entry, and is made again.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from altprop.errors import UsageError
from altprop.tasks.task import fingerprint

Arrays = dict[str, npt.NDArray[Any]]
LAYOUT = 1  # goes into every key: raise it when the same source would be decoded to something else


def root() -> Path:
    """ALTPROP_CACHE, or ~/.cache/altprop."""
    return Path(os.environ.get("ALTPROP_CACHE") or Path.home() / ".cache" / "altprop").absolute()


def key_of_folder(folder: Path, *choices: str | None) -> str:
    """SHA-256 of the folder's files (names and bytes, hidden ones left out) and of the reader's choices.

    Path and time are no part of it: a file that changed is another key, a folder that moved is the same one.
    """
    digest = sha256(json.dumps([LAYOUT, *choices]).encode())
    try:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                with file.open("rb") as stream:
                    content = file_digest(stream, "sha256").hexdigest()
                digest.update(f"\n{name.as_posix()} {content}".encode())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{error.filename or folder} cannot be read ({reason}): check its permissions") from None
    return digest.hexdigest()


def read(key: str) -> tuple[Arrays, dict[str, Any]] | None:
    """The entry's memory-mapped arrays and what is known about them; None where it is missing or damaged."""
    folder = root() / key
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in about["arrays"]}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if any(fingerprint(array) != about["arrays"][name] for name, array in arrays.items()):
        return None
    return arrays, about


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder beside the entries (the same disk, so that a rename is one step), removed in the end."""
    try:
        root().mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=root()))
    except OSError as error:
        raise _unwritable(error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_array(folder: Path, name: str, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """An array to be filled, which lives in the workspace's file and not in memory."""
    file = folder / f"{name}.npy"
    try:
        array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # Without room set aside, a full disk would kill the process at a write to the mapped file.
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        return array
    except OSError as error:
        raise _unwritable(error) from None


def publish(key: str, folder: Path, arrays: Arrays, about: dict[str, Any]) -> None:
    """Move the workspace's arrays into the entry, each in one step, `about.json` last."""
    entry = root() / key
    try:
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        about = about | {"arrays": {name: fingerprint(array) for name, array in arrays.items()}}
        (folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        entry.mkdir(exist_ok=True)
        for file in [*(f"{name}.npy" for name in arrays), "about.json"]:
            os.replace(folder / file, entry / file)
    except OSError as error:
        raise _unwritable(error) from None


def _unwritable(error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(
        f"cannot write the cache folder {root()} ({reason}): make room there, or set ALTPROP_CACHE to a "
        "folder that can be written"
    )
