"""One at a time in a key directory, of threads, clients and processes; small files that are whole whenever they are read."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.client.errors import ClientError

POLL_SECONDS = 0.05


@contextmanager
def locked(directory: Path, seconds: float) -> Iterator[None]:
    """Hold the directory's lock, which ends with the process that holds it; not reentrant.

    Raises ClientError if another holds it for `seconds`.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClientError(
                        f"another client has been making or sending the keys in {directory} for {seconds:.0f} s; wait for it, "
                        "end it, or use another key directory"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write so that a reader finds the old text or the new one, never a part. The file is 0600."""
    descriptor, partial = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(partial).rename(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_if_there(path: Path) -> str:
    """The text, or nothing where there is no file; also when another removes it just now."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
