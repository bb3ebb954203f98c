"""A real server on a ring of 256, which hides nothing and answers in 40 ms, and real clients of it."""

import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from services.client import Client, Identity, Retries
from services.local import LocalServer, local_server

RING = 256
TEXT = "the film was good"
SETTINGS = {"insecure_test_ring": RING, "metrics_address": "127.0.0.1:0", "limits.disk_reserve_bytes": 0}
QUICK = Retries(attempts=8, first_seconds=0.2, longest_seconds=1.0, patience_seconds=60)


@contextlib.contextmanager
def tiny_server(
    bundle: Path, directory: Path, *, port: int = 0, settings: Mapping[str, object] | None = None
) -> Iterator[LocalServer]:
    cache = bundle.parent / "cache"
    chosen = {**SETTINGS, **(settings or {})}
    with local_server(
        bundle, threads=1, cache_directory=cache, directory=directory, port=port, settings=chosen
    ) as running:
        yield running


def tiny_client(server: LocalServer, keys: Path, token: str | None = None, **options: Any) -> Client:
    options = {"retries": QUICK, "identity": Identity(token), **options}
    return Client(server.target, keys, server.authority, allow_insecure_test=True, **options)


def workers_of(server: LocalServer) -> list[psutil.Process]:
    """The processes that compute."""
    found = []
    for child in psutil.Process(server.process_id).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
    return found


def worker_of(server: LocalServer) -> psutil.Process:
    """The process that computes, of a server that has one."""
    (worker,) = workers_of(server)
    return worker


def metric(server: LocalServer, name: str) -> float:
    """The sum of all samples whose line begins so."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """The process stands still: whatever it is asked to do takes as long as the block."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
