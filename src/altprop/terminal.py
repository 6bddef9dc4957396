"""What the terminal shows while a comparison runs: one bar for all runs, one for the present run."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """An observer of a comparison; a context manager, so that the bars are gone before anything else is printed."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self.console = console
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)

    def __enter__(self) -> "Bars":
        self.progress.start()
        self.all = self.progress.add_task("all runs", total=None)
        self.one = self.progress.add_task("", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def plan(self, runs: int) -> None:
        self.progress.update(self.all, total=runs)

    def start(self, label: str, seed: int, depth: int) -> None:
        self.progress.reset(self.one, description=f"{label}, depth {depth}, seed {seed}", total=1.0)

    def advance(self, progress: float) -> None:
        self.progress.update(self.one, completed=progress)

    def end(self, label: str, seed: int, status: str, reason: str) -> None:
        self.progress.advance(self.all)
        if status != "ok":
            self.console.print(f"{label}, seed {seed}: {status} ({reason})", highlight=False, markup=False)
