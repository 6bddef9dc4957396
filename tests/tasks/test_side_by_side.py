import numpy as np
import pytest

from altprop.errors import UsageError
from altprop.tasks import Split, Task, load, tuples
from altprop.tasks.task import divided


def base() -> Task:
    """Images of 1 x 2 x 3 pixels, all different, of three classes."""
    parts = {}
    for number, (name, n) in enumerate((("train", 9), ("validation", 6), ("test", 6))):
        x = (100 * number + np.arange(n)[:, None] + 10 * np.arange(6)).astype(np.uint8).reshape(n, 1, 2, 3)
        parts[name] = Split(x, np.arange(n) % 3, scale=1 / 255)
    return divided("base", parts, ("a", "b", "c"), note="a note")


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_image_is_of_the_same_split_and_the_class_is_the_number_of_theirs(split: str, count: int) -> None:
    part, own = getattr(base(), split), getattr(tuples(base(), count, (200, 150, 100)), split)
    assert own.x.shape[1:] == (1, 2, 3 * count) and own.x.dtype == np.uint8 and own.scale == part.scale
    known = {image.tobytes(): label for image, label in zip(part.x, part.y, strict=True)}
    seen = set()
    for x, y in zip(own.x, own.y, strict=True):
        images = [image.tobytes() for image in np.split(x, count, axis=2)]
        assert [known[image] for image in images] == [y // 3 ** (count - 1 - place) % 3 for place in range(count)]
        seen.update(images)
    assert len(seen) == len(part)  # every image is drawn, and none of another split


def test_names_and_sizes() -> None:
    pairs = tuples(base(), 2, (20, 15, 10))
    assert (pairs.name, pairs.classes, pairs.note, pairs.image) == ("base-pairs", 9, "a note", (1, 2, 6))
    assert pairs.names[0] == "a a" and pairs.names[5] == "b c"
    assert [len(part) for part in (pairs.train, pairs.validation, pairs.test)] == [20, 15, 10]
    assert tuples(base(), 4, (1, 1, 1)).name == "base-tuples-of-4"
    assert pairs.digest == tuples(base().flat(), 2, (20, 15, 10)).digest != tuples(base(), 3, (20, 15, 10)).digest


def test_loaded_by_name() -> None:
    pairs = load("digits-pairs")
    assert (pairs.name, pairs.classes, pairs.shape) == ("digits-pairs", 100, (1, 8, 16))
    assert pairs.digest == tuples(load("digits"), 2).digest
    with pytest.raises(UsageError, match="mnist-pairs"):
        load("mnist-pears")


def test_what_cannot_be_is_refused() -> None:
    vectors = {
        name: Split(np.zeros((4, 6), np.uint8), np.zeros(4, np.int64), 1.0) for name in ("train", "validation", "test")
    }
    with pytest.raises(UsageError, match="no images"):
        tuples(divided("vectors", vectors, ("only",)), 2)
    for count, samples in ((1, (5, 5, 5)), (2, (5, 5)), (2, (5, 0, 5))):
        with pytest.raises(UsageError, match="take 2 or more"):
            tuples(base(), count, samples)
