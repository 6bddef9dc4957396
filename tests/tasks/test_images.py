from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from altprop.errors import UsageError
from altprop.tasks import load

from .conftest import encoded

Make = Callable[..., Path]
RAMP = np.arange(24, dtype=np.uint8).reshape(6, 4)
COLOURS = np.arange(72, dtype=np.uint8).reshape(6, 4, 3)


def with_images(*cells: Any) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """Put these images at the head of each split."""
    return lambda rows: rows | {"image": [*cells, *rows["image"][len(cells) :]]}


def with_labels(*labels: Any) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    return lambda rows: rows | {"label": [*labels, *rows["label"][len(labels) :]]}


NUMBERS = {"image": datasets.Image(), "label": datasets.Value("int64")}


def test_grey_images_have_one_channel(make_folder: Make) -> None:
    task = load("set", path=make_folder(columns=with_images(encoded(RAMP))))
    assert task.shape == (1, 6, 4)
    assert np.array_equal(task.train.x[0, 0], RAMP)


def test_colour_images_have_three_channels_first(make_folder: Make) -> None:
    task = load("set", path=make_folder(shape=(6, 4, 3), columns=with_images(encoded(COLOURS))))
    assert task.shape == (3, 6, 4)
    assert np.array_equal(task.test.x[0], COLOURS.transpose(2, 0, 1))


def test_one_colour_image_makes_the_set_colour(make_folder: Make) -> None:
    task = load("set", path=make_folder(columns=with_images(encoded(RAMP), encoded(COLOURS))))
    assert task.shape == (3, 6, 4)
    assert np.array_equal(task.train.x[0], np.stack([RAMP] * 3))


def test_unlike_sizes_are_named(make_folder: Make) -> None:
    folder = make_folder(columns=with_images(encoded(RAMP), encoded(RAMP.T.copy())))
    with pytest.raises(UsageError, match=r"differ in size: image 0 of train is 6x4, image 1 of train is 4x6"):
        load("set", path=folder)


def test_sixteen_bit_images_are_refused(make_folder: Make) -> None:
    deep = encoded(RAMP.astype(np.uint16))
    with pytest.raises(UsageError, match="mode I;16"):
        load("set", path=make_folder(columns=with_images(deep)))


@pytest.mark.parametrize("cut", [3, 60])
def test_a_broken_image_is_named(make_folder: Make, cut: int) -> None:
    whole = encoded(np.random.default_rng(0).integers(0, 256, (6, 4), dtype=np.uint8))
    broken = {"bytes": whole["bytes"][:cut], "path": None}
    with pytest.raises(UsageError, match=r"image 1 of train of .*set cannot be read"):
        load("set", path=make_folder(columns=with_images(whole, broken)))


def test_a_missing_image_is_named(make_folder: Make) -> None:
    with pytest.raises(UsageError, match=r"image 0 of train of .*set cannot be read"):
        load("set", path=make_folder(columns=with_images(None)))


@pytest.mark.parametrize(
    ("label", "message"),
    [(-1, "has the label -1"), (None, "1 rows of train of .*set have no label in 'label'")],
)
def test_rows_without_a_label_are_refused(make_folder: Make, label: int | None, message: str) -> None:
    folder = make_folder(columns=with_labels(label), features=NUMBERS)
    with pytest.raises(UsageError, match=message):
        load("set", path=folder, label="label")


def test_a_label_beyond_the_classes_is_refused() -> None:
    from altprop.tasks.images import labels

    data = datasets.Dataset.from_dict({"label": [0, 3, 1]})
    with pytest.raises(UsageError, match="train has the label 3, but its classes go from 0 to 2"):
        labels(data, "label", "train", 3)
    assert labels(data, "label", "train", 4).tolist() == [0, 3, 1]


def test_plain_integers_count_their_own_classes(make_folder: Make) -> None:
    task = load("set", path=make_folder(columns=with_labels(4), features=NUMBERS), label="label")
    assert (task.classes, task.names) == (5, ("0", "1", "2", "3", "4"))
