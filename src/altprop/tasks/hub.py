"""A data set's files from the Hugging Face hub: one try, and no retries where there is no network.

What was fetched once is used again without asking the hub, so that a task never changes between two runs.
"""

import json
import os
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from altprop.errors import UsageError
from altprop.tasks import cache
from altprop.tasks.catalogue import suggestion

PATIENCE = 2.5  # seconds for the hub's first answer


def fetch(hub_id: str, looked: str) -> Path:
    """The folder with the files of `hub_id` ("owner/name"); `looked` says where else it was looked for."""
    if (folder := _fetched_before(hub_id)) is not None:
        return folder
    folder = _download(hub_id, _revision(hub_id, looked))
    _remember(hub_id, folder)
    return folder


def _revision(hub_id: str, looked: str) -> str | None:
    """Ask the hub once which commit is the newest: the quick way to learn that it cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    way_out = (
        f"{looked}; put its parquet files into a folder and give that as path=FOLDER, or put that folder into "
        "the one that ALTPROP_DATA names"
    )
    try:
        return HfApi().dataset_info(hub_id, timeout=PATIENCE).sha
    except (RepositoryNotFoundError, HFValidationError):
        raise UsageError(
            f"the hub has no data set {hub_id!r} that you may read{suggestion(hub_id)}; {way_out}"
        ) from None
    except Exception as error:  # the client lets the errors of its HTTP library through, whichever that is
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"the data set {hub_id!r} is not here and the hub cannot be reached ({reason}); {way_out}"
        ) from None


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, repo_type="dataset", revision=revision))
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"downloading {hub_id!r} from the hub failed ({reason}): try again") from None


def _marker(hub_id: str) -> Path:
    return cache.root() / "hub" / f"{sha256(hub_id.encode()).hexdigest()[:16]}.json"


def _fetched_before(hub_id: str) -> Path | None:
    """Only a finished download counts: the hub's own cache does not tell half a folder from a whole one."""
    try:
        folder = Path(json.loads(_marker(hub_id).read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() else None


def _remember(hub_id: str, folder: Path) -> None:
    marker = _marker(hub_id)
    marker.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=marker.parent, delete=False, encoding="utf-8") as file:
        json.dump({"id": hub_id, "folder": str(folder.absolute())}, file)
    os.replace(file.name, marker)
