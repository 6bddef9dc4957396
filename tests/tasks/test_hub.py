import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from altprop.errors import UsageError
from altprop.tasks import load

Make = Callable[..., Path]


class FakeHub:
    """Stands in for the client: counts what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.fetched = folder, 0, 0

    def dataset_info(self, _: Any, hub_id: str, *, timeout: float) -> SimpleNamespace:
        self.asked += 1
        assert timeout < 3
        return SimpleNamespace(sha="abc")

    def snapshot_download(self, hub_id: str, *, repo_type: str, revision: str) -> str:
        self.fetched += 1
        assert (hub_id, repo_type, revision) == ("ylecun/mnist", "dataset", "abc")
        return str(self.folder)


@pytest.fixture
def fake_hub(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub(make_folder("downloaded"))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *a, **k: hub.dataset_info(*a, **k))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_fetched_once_then_never_asked_again(fake_hub: FakeHub) -> None:
    first, second = load("mnist"), load("mnist")
    assert (fake_hub.asked, fake_hub.fetched) == (1, 1)
    assert first.digest == second.digest
    assert (first.name, first.note) == ("mnist", "")


def test_fetched_again_where_the_files_are_gone(fake_hub: FakeHub) -> None:
    load("mnist")
    gone = fake_hub.folder.rename(fake_hub.folder.with_name("moved"))
    fake_hub.folder = gone
    load("mnist")
    assert fake_hub.fetched == 2


def test_a_download_that_broke_off_is_not_taken_for_whole(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "snapshot_download", broken)
        with pytest.raises(UsageError, match=r"downloading 'ylecun/mnist' .* failed \(connection reset\)"):
            load("mnist")
    load("mnist")
    assert fake_hub.fetched == 1


def test_an_id_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unknown)
    with pytest.raises(UsageError, match="the hub has no data set 'nobody/nothing' that you may read"):
        load("nobody/nothing")


def test_no_network_is_said_at_once(tmp_path: Path) -> None:
    """In a fresh process, because the client reads its settings when it is imported; nothing listens at port 9."""
    code = (
        "from altprop.errors import UsageError\nfrom altprop.tasks import load\n"
        "try: load('mnist')\nexcept UsageError as error: print(error)"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "ALTPROP_DATA": str(tmp_path / "data")}
    environment.pop("HF_HUB_OFFLINE", None)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    seconds = time.perf_counter() - start
    assert "'ylecun/mnist' is not here and the hub cannot be reached" in done.stdout
    assert f"looked for the folder {tmp_path / 'data' / 'mnist'}" in done.stdout
    assert "path=FOLDER" in done.stdout and done.stdout.count("\n") == 1
    assert "Retry" not in done.stderr
    assert seconds < 12  # imports on a busy machine; the library's own retries would take 23 s
