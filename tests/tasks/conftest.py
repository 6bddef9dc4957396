"""Small data sets of the Hugging Face kind, made on the spot."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, or finds the user's data."""
    monkeypatch.setenv("ALTPROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALTPROP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> dict[str, Any]:
    """One image as `datasets` stores it."""
    from PIL import Image

    out = BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, kind)
    return {"bytes": out.getvalue(), "path": None}


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of parquet files, one a split; `sizes` and `pixels` say what is in it."""

    def make(
        name: str = "set",
        *,
        sizes: dict[str, int] | None = None,
        seed: int = 0,
        shape: tuple[int, ...] = (6, 4),
        columns: Callable[[dict[str, list[Any]]], dict[str, list[Any]]] = lambda rows: rows,
        features: dict[str, Any] | None = None,
        kind: str = "PNG",
    ) -> Path:
        import datasets

        generator = np.random.default_rng(seed)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        chosen = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
        for split, n in (sizes or {"train": 12, "test": 5}).items():
            rows = {
                "image": [encoded(p, kind) for p in generator.integers(0, 256, (n, *shape), dtype=np.uint8)],
                "label": [i % 3 for i in range(n)],
            }
            made = datasets.Dataset.from_dict(columns(rows), features=datasets.Features(features or chosen))
            made.to_parquet(folder / f"{split}-00000-of-00001.parquet")
        return folder

    return make
