"""A data set's folder, read through the `datasets` library: parquet, arrow, or folders of image files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from altprop.errors import UsageError

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


def read_splits(folder: Path, scratch: Path) -> dict[str, Any]:
    """The folder's splits as `datasets.Dataset`s by our names: train, test, and validation if there is one.

    scratch: an empty folder for the library's own cache, whose key (path and time) must never be trusted.
    """
    import datasets

    _check_parquet(folder)
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        with _quiet():
            found = (
                datasets.load_from_disk(str(folder))
                if saved
                else datasets.load_dataset(str(folder), cache_dir=str(scratch))
            )
    except Exception as error:  # one kind of error a builder; what the user needs is the file and the reason
        cause = error.__cause__ or error
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise UsageError(
            f"the folder {folder} cannot be read as a data set ({reason}): it should hold parquet files named "
            "after their splits, train-*.parquet and test-*.parquet, or folders of images"
        ) from None
    return _named(found if isinstance(found, dict) else {"train": found}, folder)


def _named(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    for needed in ("train", "test"):
        if needed not in found:
            raise UsageError(
                f"{folder} has no {needed} split, only {', '.join(found) or 'nothing'}: add a file named "
                f"{needed}-00000-of-00001.parquet"
            )
    splits = {"train": found["train"], "test": found["test"]}
    if own := [found[name] for name in VALIDATION_NAMES if name in found]:
        splits["validation"] = own[0]
    for name, data in splits.items():
        if len(data) == 0:
            raise UsageError(f"the {name} split of {folder} is empty: it needs at least one row")
    return splits


def _check_parquet(folder: Path) -> None:
    """Name the file that is corrupt or half written, which the library's own errors do not do."""
    import pyarrow
    import pyarrow.parquet

    for file in sorted(folder.rglob("*.parquet")):
        try:
            with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as parquet:
                rows = sum(len(batch) for batch in parquet.iter_batches())
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"{file} is corrupt or only half written ({reason}): fetch it again or restore it"
            ) from None
        if rows == 0:
            raise UsageError(f"{file} is empty: give it at least one row, or remove it")


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's progress bars and log lines would tear up ours."""
    import datasets

    level, hidden = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not hidden:
            datasets.enable_progress_bars()
