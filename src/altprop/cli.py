"""The command line: plain functions, one a verb. Nothing heavy is imported before a verb needs it."""

import contextlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import UseAppendAction, arg

from altprop.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Names = Annotated[str, arg(metavar="A,B,...")]
Numbers = Annotated[str, arg(metavar="N,N,...")]
StorePath = Annotated[Path | None, arg(metavar="FILE")]


def compare(
    task: str = "digits",
    rules: Names = "all",
    seeds: int = 3,
    epochs: int | None = None,
    samples: int | None = None,
    seconds: float | None = None,
    net: str = "mlp",
    width: int | None = None,
    depth: Numbers = "2",
    batch_size: int | None = None,
    stream: bool = False,
    set: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="RULE.NAME=VALUE")]] = (),
    precision: Literal["highest", "high", "medium"] = "highest",
    device: str = "cpu",
    threads: int = 1,
    store: StorePath = None,
    report: Annotated[Path, arg(metavar="FOLDER")] = Path("altprop-report"),
) -> None:
    """Train rules and controls on the same data and budget, and write the page.

    Runs that are in the store are skipped, and one that was stopped goes on where it was.

    Args:
        task: a data set: digits, mnist, fashion-mnist, cifar10, a Hugging Face id or a folder.
        rules: comma-separated rules, or "all" (see `altprop list`).
        seeds: how many seeds, from 0.
        epochs: training budget in passes over the training set (digits 30, others 10).
        samples: training budget in samples instead.
        seconds: training budget in seconds of training instead (not repeatable to the bit).
        net: mlp, conv, vgg8b, local, spiking, recurrent-spiking, spike-coded, rates, residual, soft-hebb,
            soft-hebb-mlp or black-box.
        width: hidden units (or channels) a block.
        depth: hidden blocks; several, e.g. 2,4,8, are compared at near-equal parameters.
        batch_size: the same for all, instead of each contender's own (with --stream 1).
        stream: the data once, one sample at a time, each answered before it is learned from.
        set: a hyperparameter of a rule, e.g. backprop.lr=3e-4, or an option of the net, e.g. net.box=noisy; repeat it.
        precision: of float32 matrix products.
        device: cpu, cuda or mps.
        threads: CPU threads; one gives comparable times.
        store: the results' file (default ALTPROP_STORE, else altprop.db).
        report: where the page and the figures go.
    """
    from rich.console import Console

    from altprop.bench.audits import audits_of
    from altprop.bench.compare import compare as run
    from altprop.bench.store import default_path
    from altprop.report import leaderboard, streaming, write
    from altprop.terminal import Bars

    console = Console()
    with Bars(console) as bars:
        frame = run(
            task,
            None if rules == "all" else _list(rules),
            seeds=seeds,
            epochs=epochs,
            samples=samples,
            seconds=seconds,
            net=net,
            width=width,
            depth=_numbers("--depth", depth),
            batch_size=batch_size,
            settings=set,
            stream=stream,
            device=device,
            threads=threads,
            precision=precision,
            store=store,
            command=_command(),
            observer=bars,
        )
    console.print(streaming.table(frame) if stream else leaderboard.table(frame, console.width))
    page = write(frame, audits_of(store or default_path()), report)
    console.print(f"results  {store or default_path()}", highlight=False, soft_wrap=True)
    console.print(f"page     {page.resolve().as_uri()}", highlight=False, soft_wrap=True)


def listing() -> None:
    """Rules, tasks and nets, with each rule's claims."""
    from rich.console import Console

    from altprop.catalogue import rules_text, tasks_table

    console = Console()
    console.print("rules, and what they claim (every comparison audits it)", style="italic")
    console.print(rules_text())
    console.print(tasks_table())


def report(store: StorePath = None, output: Annotated[Path, arg(metavar="FOLDER")] = Path("altprop-report")) -> None:
    """The page and the figures again, from the store.

    Args:
        store: the results' file (default ALTPROP_STORE, else altprop.db).
        output: where the page and the figures go.
    """
    from rich.console import Console

    from altprop.bench.audits import audits_of
    from altprop.bench.store import default_path
    from altprop.report import leaderboard, write

    frame = _results(store)
    console = Console()
    console.print(leaderboard.table(frame, console.width))
    console.print(
        f"page     {write(frame, audits_of(store or default_path()), output).resolve().as_uri()}",
        highlight=False,
        soft_wrap=True,
    )


def results(
    format: Literal["json", "csv", "parquet"] = "csv",
    store: StorePath = None,
    output: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> None:
    """Every stored point, one row each.

    Args:
        format: json, csv or parquet.
        store: the results' file (default ALTPROP_STORE, else altprop.db).
        output: where to write; standard output if left out.
    """
    frame = _results(store)
    if format == "json":
        data = frame.to_json(orient="records", indent=1).encode() + b"\n"
    elif format == "csv":
        data = frame.to_csv(index=False).encode()
    else:
        data = frame.to_parquet(index=False)
    if output is None:
        sys.stdout.buffer.write(data)
    else:
        beside = output.with_name(output.name + ".part")
        beside.write_bytes(data)
        beside.replace(output)


def verify(rule: Annotated[str, tyro.conf.Positional, arg(metavar="RULE")]) -> None:
    """Run a rule's oracles: what it is compared with, and how close it comes; exit code 1 if one fails.

    Args:
        rule: its name (see `altprop list`), or "all".
    """
    from rich.console import Console

    from altprop.oracles.shown import show

    if not show(rule, Console()):
        raise SystemExit(1)


def _results(path: Path | None) -> "pd.DataFrame":
    from altprop.bench.store import Store, default_path

    with contextlib.closing(Store(path or default_path(), create=False)) as opened:
        frame = opened.results()
    if frame.empty:
        raise UsageError(f"the store {path or default_path()} holds no run yet; run `altprop compare` first")
    return frame


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in _list(text)] or [0]
    except ValueError:
        raise UsageError(f"{name} {text}: give whole numbers, separated by commas") from None


def _command() -> str:
    """The command that was typed, as it can be typed again."""
    return shlex.join(["altprop", *sys.argv[1:]])


def main() -> None:
    """The entry point: bad input is one sentence on standard error and exit code 2."""
    verbs: dict[str, Callable[..., None]] = {
        "compare": compare,
        "list": listing,
        "report": report,
        "results": results,
        "verify": verify,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            verbs, prog="altprop", description="Train without backpropagation, and compare every serious alternative."
        )
    except UsageError as error:
        print(f"altprop: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\naltprop: stopped; what was measured is stored. To go on: {_command()}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()
