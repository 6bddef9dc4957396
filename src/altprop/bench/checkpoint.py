"""Checkpoints: one safetensors file each, with JSON in its header; written beside, then renamed."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from altprop.errors import UsageError

FORMAT = "altprop-checkpoint-1"


def write(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state; raises UsageError if the disk is full or read-only."""
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The JSON travels as a tensor: the header's size is limited, the state's is not.
        text = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
        data = save({**{k: v.contiguous() for k, v in tensors.items()}, "json": text}, {"format": FORMAT})
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(
            f"the checkpoint {path} cannot be written ({error.strerror}); free some space or make the folder writable, "
            "and run the same command again: what was measured is in the store"
        ) from error


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and JSON state; raises UsageError for a file that is missing, cut in half or of another version."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise UsageError(f"the checkpoint {path} was written by another version of altprop")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            state = json.loads(bytes(tensors.pop("json").tolist()))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"the checkpoint {path} is missing, damaged or cut in half ({error})") from error
    return tensors, state
