"""Many sessions of keys and queries, and what they leave behind: `python -m tests.chaos.soak --sessions 500 --out soak.json`.

Each session is a client with keys of its own: it uploads, tests, asks, and every second one deletes its keys; the others' are
evicted as the store's budget runs out. Memory, files and threads of the front and the worker are noted every few sessions.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from services.local import LocalServer
from tests.bundles import write_small_bundle
from tests.services.tiny import TEXT, tiny_client, tiny_server, worker_of

EVERY = 10


@dataclass(frozen=True)
class Sample:
    """After so many sessions."""

    sessions: int
    seconds: float
    front_memory_bytes: int
    front_files: int
    front_threads: int
    worker_memory_bytes: int
    worker_files: int
    worker_threads: int
    stored_bytes: int


def sample(server: LocalServer, sessions: int, started: float) -> Sample:
    """Look at both processes."""
    front, worker = psutil.Process(server.process_id), worker_of(server)
    stored = sum(path.stat().st_size for path in (server.directory / "keys" / "objects").rglob("*") if path.is_file())
    numbers = [
        number
        for process in (front, worker)
        for number in (process.memory_info().rss, process.num_fds(), process.num_threads())
    ]
    return Sample(sessions, round(time.monotonic() - started, 1), *numbers, stored)


def soak(sessions: int, place: Path) -> Iterator[Sample]:
    """Run so many sessions one after the other."""
    settings = {"limits.key_sets_per_client": 1_000_000, "limits.key_store_bytes": 12 << 20}
    labels = set()
    started = time.monotonic()
    with tiny_server(write_small_bundle(place / "bundle"), place / "server", settings=settings) as server:
        for number in range(1, sessions + 1):
            keys = place / "keys"
            with tiny_client(server, keys, keep_evaluation_keys=False) as client:
                labels.add(client.classify(TEXT).label)
                if number % 2:
                    client.delete_keys()
            shutil.rmtree(keys)
            if number % EVERY == 0:
                yield sample(server, number, started)
    if len(labels) != 1:
        raise AssertionError(f"sessions disagree: {labels}")


def main() -> None:
    """Run, and write the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="thex-soak-", dir=memory if memory.is_dir() else None) as place:
        samples = [asdict(one) for one in soak(arguments.sessions, Path(place))]
    arguments.out.write_text(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()
