from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from altprop.errors import UsageError
from altprop.tasks import load

Make = Callable[..., Path]


def test_its_own_validation_split_is_used(make_folder: Make) -> None:
    task = load("set", path=make_folder(sizes={"train": 12, "validation": 4, "test": 5}))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [12, 4, 5]


def test_without_one_the_last_sixth_of_train_is_taken(make_folder: Make) -> None:
    task = load("set", path=make_folder(sizes={"train": 13, "test": 5}, seed=4))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [11, 2, 5]
    stored = np.random.default_rng(4).integers(0, 256, (13, 6, 4), dtype=np.uint8)
    assert np.array_equal(task.validation.x[:, 0], stored[11:])
    assert task.validation.y.tolist() == [2, 0]


def test_too_small_for_a_validation_split(make_folder: Make) -> None:
    with pytest.raises(UsageError, match="5 training samples and no validation split"):
        load("set", path=make_folder(sizes={"train": 5, "test": 5}))


@pytest.mark.parametrize(("present", "missing"), [("train", "test"), ("test", "train")])
def test_a_missing_split_is_named(make_folder: Make, present: str, missing: str) -> None:
    with pytest.raises(UsageError, match=f"has no {missing} split, only {present}: add a file named {missing}-"):
        load("set", path=make_folder(sizes={present: 9}))


def test_an_empty_file_is_named(make_folder: Make) -> None:
    with pytest.raises(UsageError, match=r"test-00000-of-00001\.parquet is empty"):
        load("set", path=make_folder(sizes={"train": 12, "test": 0}))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(UsageError, match=r"set cannot be read as a data set .*train-\*.parquet"):
        load("set", path=tmp_path / "set")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_half_written_file_is_named(make_folder: Make, keep: float) -> None:
    source = make_folder()
    file = source / "test-00000-of-00001.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UsageError, match=r"test-00000-of-00001\.parquet is corrupt or only half written"):
        load("set", path=source)


def test_a_page_overwritten_with_zeros_is_named(make_folder: Make) -> None:
    source = make_folder()
    file = source / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"train-00000-of-00001\.parquet is corrupt"):
        load("set", path=source)


def test_a_data_set_saved_to_disk(make_folder: Make, tmp_path: Path) -> None:
    import datasets

    parquet = make_folder()
    files = {s: str(parquet / f"{s}-00000-of-00001.parquet") for s in ("train", "test")}
    saved = datasets.DatasetDict(
        {s: datasets.Dataset.from_parquet(f, cache_dir=str(tmp_path / "c")) for s, f in files.items()}
    )
    saved.save_to_disk(tmp_path / "saved")
    assert load("set", path=tmp_path / "saved").digest == load("set", path=parquet).digest


def test_folders_of_image_files(tmp_path: Path) -> None:
    from PIL import Image

    for split, n in (("train", 6), ("test", 2)):
        for label in ("cat", "dog"):
            place = tmp_path / "pets" / split / label
            place.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(np.full((3, 3), 100 * (label == "dog") + i, np.uint8)).save(place / f"{i}.png")
    task = load(str(tmp_path / "pets"))
    assert (task.name, task.names, task.shape) == ("pets", ("cat", "dog"), (1, 3, 3))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [10, 2, 4]
    assert [int(x[0, 0, 0]) // 100 for x in task.test.x] == task.test.y.tolist()


def test_reading_is_silent_and_changes_no_setting(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    import datasets

    before = (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled())
    load("set", path=make_folder())
    assert (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()) == before
    out = capfd.readouterr()
    assert "Generating" not in out.out + out.err
