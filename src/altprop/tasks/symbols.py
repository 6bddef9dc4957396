"""Next-symbol prediction: windows of a text, one-hot, and the symbol that follows each.

After the sequence experiment of Hinton 2022 (arXiv 2212.13345, section 3.5): ten characters predict the next one.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from altprop.errors import UsageError
from altprop.tasks.task import Split, Task, divided

PARTS = (0.8, 0.1, 0.1)
"""Of the text, from its beginning, for train, validation and test: no window reaches from one into another."""


def text(
    file: str | Path, *, length: int = 10, samples: tuple[int, int, int] = (50_000, 10_000, 10_000), lower: bool = True
) -> Task:
    """A task from a plain text file: inputs (length * symbols,), the one-hot symbols one after another.

    length: symbols in a window; samples: windows in train, validation and test, evenly spaced, fewer in a short text;
    lower: whether capitals become small letters. The classes are the symbols of the text, in their order.

    Raises UsageError where the file is missing or too short for one window in each part.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"text({str(file)!r}): there is no such file; give a plain text file")
    content = path.read_text(encoding="utf-8")
    content = content.lower() if lower else content
    symbols = sorted(set(content))
    codes = np.searchsorted(np.array([ord(s) for s in symbols]), np.array([ord(s) for s in content], dtype=np.int64))
    bounds = np.cumsum([0.0, *PARTS]) * len(codes)
    parts = {}
    for i, (name, limit) in enumerate(zip(("train", "validation", "test"), samples, strict=True)):
        part = codes[int(bounds[i]) : int(bounds[i + 1])]
        if len(part) <= length or length < 1 or limit < 1:
            raise UsageError(
                f"text({str(file)!r}): the {name} part has {len(part)} symbols, too few for a window of {length} and "
                "the next one; give a longer text or a shorter window"
            )
        parts[name] = windows(part, length, limit, len(symbols))
    return divided(path.stem, parts, tuple(symbols))


def windows(codes: npt.NDArray[np.int64], length: int, limit: int, symbols: int) -> Split:
    """At most `limit` windows, evenly spaced, and the symbol after each."""
    places = len(codes) - length
    starts = np.unique(np.linspace(0, places - 1, min(limit, places)).astype(np.int64))
    seen = codes[starts[:, None] + np.arange(length)]
    x = np.zeros((len(starts), length, symbols), dtype=np.uint8)
    np.put_along_axis(x, seen[:, :, None], 1, axis=2)
    return Split(x.reshape(len(starts), -1), codes[starts + length], 1.0)
