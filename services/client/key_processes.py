"""Evaluation keys made by several processes: SEAL's bindings hold the interpreter lock, so threads would take turns.

A process is told through its standard input whose keys to make, and the passphrase if there is one: nothing secret is among its
arguments or in its environment. It opens the stored secret key itself, leaves each key in the key directory, whole, and says so.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from he_runtime.parameters import Parameters
from he_runtime.seal import SealClient, SecretKey
from he_runtime.wire.message import Binding
from he_runtime.wire.sizes import evaluation_key_bytes
from services.client.errors import ClientError
from services.client.key_cache import KeyCache

MOST_PROCESSES = 4
"""Each takes 1.1 GB while it makes keys of 54 primes at N=65536."""
WORTHWHILE_BYTES = 100_000_000
"""Fewer bytes of keys are made before another process has started."""
ENDING_SECONDS = 5.0
KEY_SECONDS = 300.0
"""A process that takes longer for one key hangs: the largest take seconds."""
SECRET_VARIABLES = ("THEX_PASSPHRASE", "THEX_TOKEN")
"""What `thex` reads from its environment, and its processes do not inherit."""
_PROGRAM = f"import sys; sys.path.append({str(Path(__file__).parents[2])!r}); from {__name__} import serve; serve()"
"""With -P nothing is imported from the working directory; this package is found where it was found here."""

Make = Callable[[tuple[int, int]], bytes]
"""(Galois element, level) -> message."""


@contextlib.contextmanager
def key_maker(
    cache: KeyCache, secret: SecretKey, missing: Mapping[int, int], processes: int | None
) -> Iterator[tuple[Make, int]]:
    """What makes the missing keys (element -> level), or takes them from the cache, and how many threads may ask it at once.

    processes: None for one a core, where there is much to make. Without a cache on disk this process makes them alone.
    """
    size = sum(
        evaluation_key_bytes(cache.binding.parameters, level)
        for element, level in missing.items()
        if not cache.has(element)
    )
    count = (
        (min(MOST_PROCESSES, len(os.sched_getaffinity(0))) if size >= WORTHWHILE_BYTES else 1)
        if processes is None
        else processes
    )
    if count < 2 or not cache.keep:
        yield lambda wanted: cache.message(secret, *wanted), 1
        return
    with KeyProcesses(cache, count) as others:

        def make(wanted: tuple[int, int]) -> bytes:
            if cache.kept(*wanted) is None:
                others.make(*wanted)
            return cache.message(secret, *wanted)

        yield make, count


class KeyProcesses:
    """Processes that put keys into a cache; they end with the block, after the key in hand."""

    def __init__(self, cache: KeyCache, count: int) -> None:
        first = {
            "directory": str(cache.directory.resolve()),
            "parameters": cache.binding.parameters.to_json(),
            "program_digest": cache.binding.program_digest,
            "passphrase": cache.passphrase,
        }
        self._free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
        self._all = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,  # an interrupt is for this process, which ends the others in order
            )
            for _ in range(count)
        ]
        for process in self._all:
            _tell(process, first)
            self._free.put(process)

    def make(self, element: int, level: int) -> None:
        """Have a free process make one key. ClientError when it ended instead."""
        process = self._free.get()
        try:
            _tell(process, [element, level])
            answer = _answer(process)
        finally:
            self._free.put(process)
        if answer.strip() != str(element):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ENDING_SECONDS)
            raise ClientError(
                f"a process that makes keys ended with status {process.poll()}, out of memory perhaps; finished keys are kept: "
                "try again, with key_processes=1 if need be"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._all:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._all:
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _answer(process: "subprocess.Popen[str]") -> str:
    """A line of a process; nothing if it has ended, or hangs, and is ended therefore."""
    if process.stdout is None:
        return ""
    if not select.select([process.stdout], [], [], KEY_SECONDS)[0]:
        process.kill()
    return process.stdout.readline()


def _tell(process: "subprocess.Popen[str]", what: Any) -> None:
    """A line to a process; nothing if it has ended, which its missing answer will show."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()


def serve() -> None:
    """The other side: make what standard input asks for until it ends."""
    first = json.loads(sys.stdin.readline())
    insecure = bool(first["parameters"]["insecure_test"])  # the client that asks has refused them if it had to
    parameters = Parameters.from_json(first["parameters"], allow_insecure_test=insecure)
    binding = Binding(parameters, first["program_digest"])
    cache = KeyCache(Path(first["directory"]), SealClient(parameters), binding, first["passphrase"], keep=True)
    secret = cache.stored_secret()
    for line in sys.stdin:
        element, level = json.loads(line)
        cache.message(secret, element, level)
        sys.stdout.write(f"{element}\n")
        sys.stdout.flush()
