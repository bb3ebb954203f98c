"""The public half of a model on the client's disk: whole, verified before it is there, and readable by its owner alone."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from he_runtime.bundle import CLIENT_FILES, ClientHalf
from services.client.directory_lock import locked

FILES = (*CLIENT_FILES, "manifest.json")
LOCK_SECONDS = 60.0


def make_private(directory: Path) -> None:
    """Make the directory, and what it lies in, for its owner alone; what was there before keeps its mode."""
    for place in reversed([directory, *directory.parents]):
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)


def stored_half(directory: Path, files: Mapping[str, bytes]) -> ClientHalf:
    """The half that a server sent, kept as directory/model. KeyError for a file that is missing, BundleError for a wrong one.

    Of processes that share the directory one writes: others never read a half-written file.
    """
    content = {name: files[name] for name in FILES}
    place = directory / "model"
    if all(_read(place / name) == content[name] for name in FILES):
        return ClientHalf.open(place)
    # Not the directory's own lock: whoever makes keys there holds that for minutes.
    with (
        locked(directory.parent, LOCK_SECONDS),
        tempfile.TemporaryDirectory(prefix="model-", dir=directory) as temporary,
    ):
        fresh = Path(temporary) / "model"
        fresh.mkdir(mode=0o700)
        for name in FILES:
            (fresh / name).write_bytes(content[name])
        ClientHalf.open(fresh)  # verified before it is anybody's
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    return ClientHalf.open(place)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
