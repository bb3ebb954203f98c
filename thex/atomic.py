"""Files that are whole or absent: written beside where they go, under a name of their own, and renamed; and work done once."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when nothing went wrong and is gone when something did.

    Two processes that write the same file do not meet: the later one's stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until no other process is in this block for the same directory, so that what two need is made once.

    The lock ends with the process that holds it; not reentrant.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """The file, UTF-8."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")
