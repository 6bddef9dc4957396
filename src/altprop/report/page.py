"""The page: one HTML file that opens from disk with no network, and the figures beside it."""

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from altprop.errors import UsageError
from altprop.report.content import content
from altprop.report.figures import draw
from altprop.report.replace import replaced


def write(results: pd.DataFrame, audits: pd.DataFrame, folder: Path) -> Path:
    """Write the figures and `index.html` into the folder, and return the page's path.

    Each file is written under a temporary name and then renamed, so that a reader never sees half a page. Raises
    UsageError where there is nothing to show, or nowhere to write.
    """
    if results.empty:
        raise UsageError("there are no results to report yet; run `altprop compare` first")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = [path.name for path in draw(results, folder)]
        with replaced(folder / "index.html") as name:
            name.write_text(html(content(results, audits, figures)), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the report cannot be written to {folder}: {os.strerror(error.errno or 0)}") from error
    return folder / "index.html"


def html(data: dict[str, Any]) -> str:
    """The template, filled in one pass, so that nothing in the data is ever taken for a placeholder."""
    here = files("altprop.report")
    filling = {"data": embedded(data), "plotly": here.joinpath("plotly-basic.min.js").read_text(encoding="utf-8")}
    template = here.joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(data|plotly)\}\}", lambda found: filling[found[1]], template)


def embedded(data: dict[str, Any]) -> str:
    """JSON that is safe inside <script>: no "<" is left, so no tag can end it or begin in it."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
