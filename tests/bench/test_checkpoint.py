"""Checkpoints: what goes in comes out, and what is damaged is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from altprop.bench import checkpoint
from altprop.errors import UsageError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True, False]), "c": torch.zeros(0)}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "new" / "c.safetensors", TENSORS, {"samples": 5, "name": "é"})
    tensors, state = checkpoint.read(tmp_path / "new" / "c.safetensors")
    assert state == {"samples": 5, "name": "é"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_cut_short(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, TENSORS, {"samples": 5})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UsageError, match=r"c\.safetensors is missing, damaged or cut in half"):
        checkpoint.read(path)


def test_another_version(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "c.safetensors", {"format": "altprop-checkpoint-0", "state": json.dumps({})})
    with pytest.raises(UsageError, match="another version of altprop"):
        checkpoint.read(tmp_path / "c.safetensors")


def test_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, TENSORS, {"samples": 5})

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"No space left on device.*what was measured is in the store"):
        checkpoint.write(path, {}, {"samples": 6})
    monkeypatch.undo()
    assert checkpoint.read(path)[1] == {"samples": 5}
