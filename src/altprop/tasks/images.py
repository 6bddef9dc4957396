"""Images and labels of a `datasets` split, decoded into arrays."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from altprop.errors import UsageError

GREY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
UNREADABLE = (OSError, SyntaxError, ValueError)  # what Pillow raises for a broken image
ROWS = 1000  # read at once


class Survey(NamedTuple):
    """What the images of all splits have in common."""

    height: int
    width: int
    channels: int
    lossy: bool  # at least one image is stored as JPEG


def survey(splits: dict[str, Any], column: str, where: str) -> Survey:
    """Read every image's header. Raises UsageError for unlike sizes and for images that are not 8-bit."""
    sizes: dict[tuple[int, int], str] = {}
    modes, formats = set(), set()
    for split, data in splits.items():
        for number, image in enumerate(_opened(data, column, f"{split} of {where}")):
            sizes.setdefault(image.size, f"image {number} of {split}")
            modes.add(image.mode)
            formats.add(image.format)
    if len(sizes) > 1:
        (first, at), (second, then) = list(sizes.items())[:2]
        raise UsageError(
            f"the images of {where} differ in size: {at} is {first[1]}x{first[0]}, {then} is "
            f"{second[1]}x{second[0]} (height x width); resize them all to one size first"
        )
    if unknown := sorted(modes - {*GREY, *COLOUR}):
        raise UsageError(
            f"{where} has images of Pillow's mode {unknown[0]}, not 8-bit grey or colour: convert them first"
        )
    ((width, height),) = sizes
    return Survey(height, width, 1 if modes <= {*GREY} else 3, "JPEG" in formats)


def decode(data: Any, column: str, where: str, out: npt.NDArray[np.uint8]) -> None:
    """Fill `out`, (n, channels, height, width), with a split's images; grey ones have one channel."""
    mode = "L" if out.shape[1] == 1 else "RGB"
    for number, image in enumerate(_opened(data, column, where)):
        try:
            pixels = np.asarray(image.convert(mode))
        except UNREADABLE as error:
            raise _broken(number, where, error) from None
        out[number] = pixels if mode == "L" else pixels.transpose(2, 0, 1)


def labels(data: Any, column: str, where: str, classes: int | None) -> npt.NDArray[np.int64]:
    """The split's labels, checked to lie in [0, classes); classes None: checked to be >= 0 only."""
    values = data.select_columns(column).with_format("arrow")[:].column(column)
    if values.null_count:
        raise UsageError(f"{values.null_count} rows of {where} have no label in {column!r}: remove them")
    found = values.to_numpy()
    if classes is not None and found.max() >= classes:
        raise UsageError(
            f"{where} has the label {found.max()}, but its classes go from 0 to {classes - 1}: correct the rows"
        )
    if found.min() < 0:
        raise UsageError(
            f"{where} has the label {found.min()}: labels go from 0 up, and -1 often means 'not labelled'; "
            "remove those rows"
        )
    return np.asarray(found, dtype=np.int64)


def _opened(data: Any, column: str, where: str) -> Iterator[Any]:
    """Each image of the split with its header read and its pixels not yet decoded."""
    from PIL import Image

    number = 0
    for rows in data.select_columns(column).iter(ROWS):
        for cell in rows[column]:
            if cell is None:
                raise _broken(number, where, "there is none")
            try:
                stored = cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"])
                with Image.open(stored) as image:
                    yield image
            except (*UNREADABLE, Image.DecompressionBombError) as error:
                raise _broken(number, where, error) from None
            number += 1


def _broken(number: int, where: str, reason: Exception | str) -> UsageError:
    return UsageError(f"image {number} of {where} cannot be read ({reason}): restore it or remove the row")
