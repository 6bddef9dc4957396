"""The protocol: budgets, points, seeds, and the same data order for every rule."""

import pytest

from altprop.bench import protocol
from altprop.bench.compare import compare
from altprop.bench.protocol import Budget, marks, seed_of
from altprop.errors import UsageError


def test_marks() -> None:
    assert marks(50_000) == [500, 1000, 2000, 5000, 10_000, 20_000]
    assert marks(1197) == [500, 1000]
    assert marks(500) == []


def test_seeds_differ_by_axis_and_seed_and_never_change() -> None:
    found = {seed_of(axis, seed) for axis in ("data", "init", "rule") for seed in range(50)}
    assert len(found) == 150
    assert seed_of("data", 0) == 177416065750103


@pytest.mark.parametrize("given", [{}, {"epochs": 1, "samples": 5}, {"epochs": 0}, {"seconds": -1.0}])
def test_exactly_one_positive_budget(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="one positive budget"):
        Budget(**given)


def test_progress() -> None:
    assert Budget(epochs=2).progress(100, 9.0, 100) == 0.5
    assert Budget(samples=50).progress(100, 9.0, 100) == 1.0
    assert Budget(seconds=4.0).progress(100, 1.0, 100) == 0.25


def test_points_of_a_run(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, epochs=2, batch_size=32, store=f"{tmp_path}/s.db")
    points = frame[(frame["variant"] == "") & (frame["split"] == "test")]
    assert list(points["samples"]) == [0, 512, 1024, 1197, 2394]
    assert list(points["epoch"])[-2:] == [1.0, 2.0]
    assert set(frame["split"]) == {"train", "validation", "test"}
    assert points["operations"].is_monotonic_increasing and points["train_seconds"].is_monotonic_increasing


def test_samples_budget_ends_with_a_point(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, samples=700, batch_size=32, store=f"{tmp_path}/s.db")
    assert frame["samples"].max() == 704


def test_seconds_budget_ends(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, seconds=0.2, store=f"{tmp_path}/s.db")
    last = frame.groupby("run")["train_seconds"].max()
    assert ((last >= 0.2) & (last < 2)).all()


def test_version_is_in_every_row(tmp_path: object) -> None:
    frame = compare("digits", ["backprop"], seeds=1, samples=64, store=f"{tmp_path}/s.db")
    assert set(frame["protocol"]) == {protocol.VERSION}
