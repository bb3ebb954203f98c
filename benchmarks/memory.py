"""Memory of processes as Linux counts it, in bytes."""

from collections.abc import Iterator
from pathlib import Path


def peak_bytes(process: int | str = "self") -> int:
    """The largest that one process's resident memory has ever been."""
    return _status(process, "VmHWM")


def own_bytes(process: int | str = "self") -> int:
    """What one process holds now, less what it maps from files and the system may take back."""
    return _status(process, "RssAnon")


def processes_below(process: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield process
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in file.read_text().split():
            yield from processes_below(int(child))


def _status(process: int | str, name: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/{process}/status has no {name}; only Linux counts memory so")
