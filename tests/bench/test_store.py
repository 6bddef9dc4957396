"""The store: what it refuses, and that a point is never doubled or lost."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from altprop.bench.store import DETAILS, Store
from altprop.errors import UsageError

RUN = {"task": "t", "rule": "r", "variant": "", "net": "mlp", "depth": 2, "width": 4, "seed": 0}
POINT = {
    "samples": 10,
    "predictor": "",
    "split": "test",
    "metric": "accuracy",
    "value": 0.5,
    "epoch": 0.1,
    "train_seconds": 1.0,
    "cpu_seconds": 1.0,
    "finish_seconds": 0.0,
    "operations": 100,
    "load": None,
}


def filled(path: Path) -> Store:
    store = Store(path)
    run = store.add_run("key", RUN, {"parameters": 7})
    store.save(run, [POINT], checkpoint="1-10.safetensors")
    return store


def test_one_row_a_point_with_every_promised_column(tmp_path: Path) -> None:
    frame = filled(tmp_path / "s.db").results()
    assert len(frame) == 1
    promised = "task rule variant predictor net seed epoch samples train_seconds split metric value status parameters "
    promised += "operations peak_step_bytes protocol"
    assert set(promised.split()) <= set(frame.columns)
    assert set(DETAILS) <= set(frame.columns)
    assert frame.loc[0, "parameters"] == 7 and frame.loc[0, "value"] == 0.5


def test_a_run_is_made_once_and_a_point_is_kept_once(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    assert store.add_run("key", RUN, {}) == 1
    store.save(1, [{**POINT, "value": 0.9}, {**POINT, "samples": 20}])
    assert list(store.results()["value"]) == [0.5, 0.5]


def test_points_and_checkpoint_name_stand_or_fall_together(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    with pytest.raises(KeyError):
        store.save(1, [{**POINT, "samples": 20}, {"samples": 30}], checkpoint="1-30.safetensors")
    known = store.run("key")
    assert known is not None and known["checkpoint"] == "1-10.safetensors"
    assert len(store.results()) == 1


def test_a_run_without_points_has_one_row_with_its_reason(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    store.set_status(store.add_run("key", RUN, {}), "unsupported", "because")
    (row,) = store.results().to_dict("records")
    assert (row["status"], row["reason"]) == ("unsupported", "because")


def test_no_readout_yet_is_said_in_words(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    store.save(1, [{**POINT, "samples": 20, "value": None, "status": "no readout yet"}], status="ok")
    assert list(store.results()["status"]) == ["ok", "no readout yet"]


def make_text(path: Path) -> None:
    path.write_text("not a database " * 100)


def make_foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("create table theirs (a)")
    db.commit()
    db.close()


def make_newer(path: Path) -> None:
    filled(path).close()
    db = sqlite3.connect(path)
    db.execute("pragma user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (make_text, "is not an altprop store"),
        (make_foreign, "is a database of another program"),
        (make_newer, "has store version 99"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, spoil: object, words: str) -> None:
    path = tmp_path / "s.db"
    assert callable(spoil)
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UsageError, match=words):
        Store(path)
    assert before is None or path.read_bytes() == before


def test_missing_store_is_not_made_where_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `altprop compare` first"):
        Store(tmp_path / "s.db", create=False)
    assert not (tmp_path / "s.db").exists()


def test_locked_store_is_a_sentence(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    store.db.execute("pragma busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(UsageError, match="is locked by another program"):
        store.save(1, [])
    other.close()
    store.save(1, [{**POINT, "samples": 20}])
    assert len(store.results()) == 2


def test_full_disk_is_a_sentence_and_what_was_there_stays(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    pages = store.db.execute("pragma page_count").fetchone()[0]
    store.db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(UsageError, match="the disk is full"):
        store.save(1, [{**POINT, "samples": n} for n in range(100, 5000)])
    assert len(store.results()) == 1


def test_read_only_store_is_a_sentence(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.db")
    store.db.execute("pragma query_only = on")  # file modes do not stop root
    with pytest.raises(UsageError, match="is read-only"):
        store.save(1, [])


def test_stores_that_are_opened_at_once_are_all_open(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def opened(path: Path) -> str:
        start.wait()
        store = Store(path)
        try:
            return str(store.db.execute("pragma journal_mode").fetchone()[0])
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        for i in range(25):
            assert list(pool.map(opened, [tmp_path / f"{i}.db"] * 4)) == ["wal"] * 4
