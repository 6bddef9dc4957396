import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from altprop.errors import UsageError
from altprop.tasks import cache, folder, load

Make = Callable[..., Path]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every time that the source was decoded and not found in the cache."""
    seen: list[Path] = []
    whole = folder.read_splits

    def counted(source: Path, scratch: Path) -> dict[str, Any]:
        seen.append(source)
        return whole(source, scratch)

    monkeypatch.setattr(folder, "read_splits", counted)
    return seen


def test_decoded_once_then_mapped(make_folder: Make, reads: list[Path]) -> None:
    first, second = (load("set", path=make_folder()) for _ in range(2))
    assert len(reads) == 1
    assert isinstance(second.train.x, np.memmap) and second.train.x.dtype == np.uint8
    assert first.digest == second.digest
    assert np.array_equal(first.test.x, second.test.x)


def test_a_file_that_changed_under_the_same_path_size_and_time_is_read_anew(make_folder: Make) -> None:
    source = make_folder(seed=1)
    file = source / "train-00000-of-00001.parquet"
    before = file.stat()
    old = load("set", path=source)
    make_folder(seed=2)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    new = load("set", path=source)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    expected = np.random.default_rng(2).integers(0, 256, (12, 6, 4), dtype=np.uint8)
    assert np.array_equal(new.train.x[:, 0], expected[:10])
    assert old.digest != new.digest


def test_a_folder_that_moved_is_the_same_data(make_folder: Make, reads: list[Path]) -> None:
    source = make_folder()
    first = load("set", path=source)
    moved = source.rename(source.with_name("elsewhere"))
    assert load("set", path=moved).digest == first.digest
    assert len(reads) == 1


def test_the_columns_are_part_of_the_key(make_folder: Make, reads: list[Path]) -> None:
    source = make_folder()
    load("set", path=source)
    load("set", path=source, label="label")
    assert len(reads) == 2


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["train_x.npy", "test_y.npy", "about.json"])
@pytest.mark.parametrize("damage", [half, flip, Path.unlink])
def test_a_damaged_entry_is_made_again(
    make_folder: Make, own_cache: Path, reads: list[Path], name: str, damage: Callable[[Path], None]
) -> None:
    source = make_folder()
    digest = load("set", path=source).digest
    (file,) = own_cache.glob(f"*/{name}")
    whole = file.read_bytes()
    damage(file)
    assert load("set", path=source).digest == digest
    assert (len(reads), file.read_bytes()) == (2, whole)


def test_nothing_is_left_beside_the_entry(make_folder: Make, own_cache: Path) -> None:
    load("set", path=make_folder())
    (entry,) = own_cache.iterdir()
    about = json.loads((entry / "about.json").read_text())
    assert {f.name for f in entry.iterdir()} == {"about.json", *(f"{name}.npy" for name in about["arrays"])}


def test_nothing_is_left_where_decoding_failed(make_folder: Make, own_cache: Path) -> None:
    with pytest.raises(UsageError):
        load("set", path=make_folder(sizes={"train": 12}))
    assert list(own_cache.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ALTPROP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"cannot write the cache folder .*file \(.+\).*ALTPROP_CACHE"):
        load("set", path=make_folder())


def test_a_full_disk_is_a_sentence(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UsageError, match=r"No space left on device.*make room"):
        load("set", path=make_folder())


def test_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ALTPROP_CACHE", "")
    assert cache.root() == tmp_path / ".cache" / "altprop"
