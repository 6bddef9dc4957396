"""The store: one SQLite file that holds every run, every point and every audited claim."""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from altprop.errors import UsageError

APPLICATION = 0x616C7470  # "altp", in the file's header: tells our stores from other SQLite files
SCHEMA_VERSION = 1
POINT = (
    "run",
    "samples",
    "predictor",
    "split",
    "metric",
    "value",
    "epoch",
    "train_seconds",
    "cpu_seconds",
    "finish_seconds",
    "operations",
    "load",
    "status",
)
DETAILS = (
    "parameters",
    "parameters_inference",
    "operations_per_sample",
    "forward_operations",
    "peak_step_bytes",
    "batch_size",
    "epochs",
    "samples_planned",
    "seconds_planned",
    "mode",
    "chance",
    "task_note",
    "threads",
    "precision",
    "device",
    "protocol",
    "source_hash",
    "hyperparameters",
    "card",
    "machine",
    "versions",
    "command",
    "started",
)


PATIENCE = 30.0
"""Seconds that another program may hold the store."""


def default_path() -> Path:
    """ALTPROP_STORE, or altprop.db in the working folder."""
    return Path(os.environ.get("ALTPROP_STORE") or "altprop.db")


class Store:
    """Opens (and makes, if `create`) the store; every write is one transaction, so a kill loses and doubles nothing.

    Raises UsageError for a file that is not an altprop store, or one that is locked, read-only or out of disk space.
    """

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.exists():
            raise UsageError(f"there is no store at {self.path}; run `altprop compare` first, or name one with --store")
        with self._words():
            self.db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            self.db.row_factory = sqlite3.Row
            self._open()

    def _open(self) -> None:
        self.db.execute("begin")  # one view of the file, which another program may be making
        application = self.db.execute("pragma application_id").fetchone()[0]
        empty = self.db.execute("select count(*) from sqlite_master").fetchone()[0] == 0
        schema = self.db.execute("pragma user_version").fetchone()[0]
        self.db.execute("commit")
        if not empty and application != APPLICATION:
            raise UsageError(f"{self.path} is a database of another program; name another file with --store")
        if not empty and schema != SCHEMA_VERSION:
            raise UsageError(
                f"{self.path} has store version {schema}, this altprop writes {SCHEMA_VERSION}; "
                "name another file with --store"
            )
        self._log_ahead()
        if empty:
            script = files("altprop.bench").joinpath("schema.sql").read_text()
            self.db.executescript(
                f"begin immediate;{script}pragma application_id = {APPLICATION};"
                f"pragma user_version = {SCHEMA_VERSION};commit;"
            )

    def _log_ahead(self) -> None:
        """Readers and a writer side by side. SQLite does not wait by itself for others that ask for the same."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.db.execute("pragma journal_mode = wal")
                return
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _words(self) -> Iterator[None]:
        """SQLite's errors as sentences."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if self.path.is_dir() or name.startswith("SQLITE_CANTOPEN"):
                why = "cannot be opened; is the folder there, and is it a file"
            elif name.startswith("SQLITE_NOTADB") or name.startswith("SQLITE_CORRUPT"):
                why = "is not an altprop store, or it is damaged; name another file with --store"
            elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                why = "is locked by another program; wait for it, or name another file with --store"
            elif name.startswith("SQLITE_READONLY"):
                why = "is read-only; make it writable, or name another file with --store"
            elif name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
                why = "cannot be written: the disk is full or failing; free some space and run the same command again"
            else:
                raise
            raise UsageError(f"the store {self.path} {why} ({error})") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._words():
            self.db.execute("begin immediate")
            try:
                yield self.db
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("rollback")
                raise
            self.db.execute("commit")

    # Runs and points.

    def add_run(self, key: str, columns: Mapping[str, Any], details: Mapping[str, Any]) -> int:
        """The run's id; made if its key is new, else left as it is."""
        names = list(columns)
        with self.transaction() as db:
            db.execute(
                f"insert into runs (key, {', '.join(names)}, status, details) "
                f"values (?{', ?' * len(names)}, 'running', ?) on conflict (key) do nothing",
                (key, *columns.values(), json.dumps(details)),
            )
            return int(db.execute("select id from runs where key = ?", (key,)).fetchone()[0])

    def run(self, key: str) -> dict[str, Any] | None:
        """A run's row, its details opened; None if there is none."""
        with self._words():
            row = self.db.execute("select * from runs where key = ?", (key,)).fetchone()
        return None if row is None else {**dict(row), "details": json.loads(row["details"])}

    def save(
        self,
        run: int,
        points: Iterable[Mapping[str, Any]],
        *,
        status: str = "running",
        reason: str = "",
        checkpoint: str | None = None,
    ) -> None:
        """Points, the checkpoint they belong to, and the run's status, in one transaction."""
        sql = f"insert into points ({', '.join(POINT)}) values ({', '.join('?' * len(POINT))}) on conflict do nothing"
        with self.transaction() as db:
            db.executemany(sql, [tuple({"run": run, "status": "", **p}[c] for c in POINT) for p in points])
            db.execute(
                "update runs set status = ?, reason = ?, checkpoint = ? where id = ?", (status, reason, checkpoint, run)
            )

    def save_details(self, run: int, details: Mapping[str, Any]) -> None:
        """Add to what is known of a run."""
        with self.transaction() as db:
            db.execute("update runs set details = json_patch(details, ?) where id = ?", (json.dumps(details), run))

    def set_status(self, run: int, status: str, reason: str) -> None:
        """Only the status, so that the checkpoint stays."""
        with self.transaction() as db:
            db.execute("update runs set status = ?, reason = ? where id = ?", (status, reason, run))

    def results(self) -> pd.DataFrame:
        """Every stored point, one row each; a run without points has one row with its status."""
        runs = self._frame("select * from runs")
        columns = ", ".join(c for c in POINT if c != "status")
        points = self._frame(f"select {columns}, status as point_status from points order by run, samples, split")
        details = pd.DataFrame(
            [json.loads(text) for text in runs.pop("details")],
            columns=list(DETAILS),
            index=runs.index,
        )
        runs = pd.concat([runs.drop(columns=["key", "checkpoint"]), details], axis=1).rename(columns={"id": "run"})
        rows = runs.merge(points, on="run", how="left")
        silent = rows["point_status"].notna() & (rows["point_status"] != "")
        rows.loc[silent, "status"] = rows.loc[silent, "point_status"]
        return rows.drop(columns="point_status")

    def _frame(self, sql: str) -> pd.DataFrame:
        with self._words():
            cursor = self.db.execute(sql)
            return pd.DataFrame.from_records(cursor.fetchall(), columns=[c[0] for c in cursor.description])

    # Audited claims.

    def add_audit(self, rule: str, variant: str, source_hash: str, findings: Iterable[Any]) -> None:
        """Findings (claim, claimed, measured, holds) of one rule."""
        rows = [(rule, variant, source_hash, f.claim, f.claimed, f.measured, int(f.holds)) for f in findings]
        with self.transaction() as db:
            db.executemany("insert or replace into audits values (?, ?, ?, ?, ?, ?, ?)", rows)

    def audits(self) -> pd.DataFrame:
        """Every audited claim: rule, variant, source_hash, claim, claimed, measured, holds."""
        frame = self._frame("select * from audits")
        return frame.astype({"holds": bool})
