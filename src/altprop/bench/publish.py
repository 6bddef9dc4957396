"""What is published of a measurement: its runs and its points as CSV, its figures, and tables in Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from altprop.bench.cases import WORDS, worded
from altprop.bench.store import DETAILS, POINT
from altprop.report.figures import draw
from altprop.report.replace import replaced

RUN = ["run", "task", "rule", "variant", "net", "depth", "width", "seed", "status", "reason", *DETAILS]
ROW = [name for name in POINT if name not in ("cpu_seconds", "finish_seconds", "load")]
SILENT = "no readout yet"


def write_rows(frame: pd.DataFrame, folder: Path) -> None:
    """Stored rows as `runs.csv`, one row a run, and `rows.csv`, one row a point; runs are numbered from 0."""
    rows = worded(frame).sort_values(["task", "rule", "variant", "seed", "run", "samples"], kind="stable")
    rows = rows.assign(run=pd.factorize(rows["run"])[0])
    points = rows[rows["samples"].notna()]
    points = points.assign(status=points["status"].where(points["status"] == SILENT, ""))
    runs = rows[rows["status"] != SILENT].drop_duplicates("run", keep="last")
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("runs", runs[RUN]), ("rows", points[ROW])):
        with replaced(folder / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.7g")


def read_rows(folder: Path) -> pd.DataFrame:
    """What `write_rows` wrote, as stored rows; empty if there is nothing."""
    if not (folder / "rows.csv").exists() or not (folder / "runs.csv").exists():
        return pd.DataFrame()
    words = dict.fromkeys(WORDS, str)  # a hash such as 203e7849 is no number
    points = pd.read_csv(folder / "rows.csv", dtype=words).rename(columns={"status": "silent"})
    rows = worded(pd.read_csv(folder / "runs.csv", dtype=words).merge(points, on="run", how="left"))
    silent = rows.pop("silent") == SILENT
    return rows.assign(status=rows["status"].mask(silent, SILENT))


def draw_curves(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Learning curves against each cost; the pictures for a page (the SVG beside each holds the same drawing)."""
    written = draw(frame, folder)
    for path in written:
        if path.suffix == ".pdf":
            path.unlink()
    return [path for path in written if path.suffix == ".png"]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells would end them."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def write_page(path: Path, text: str) -> None:
    """Write a page whole, or leave the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")
