"""The client of a benchmark in a process of its own, so that its memory and the server's are told apart.

What passes between the two are the messages of the wire, and files of keys. Only the benchmark of precision has the client
decrypt intermediate values as well: the secret key is the tester's own.
"""

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from he_runtime.client_plan import ClientPlan
from he_runtime.errors import RangeError


class ClientProcess:
    """Every call returns what it made and the seconds that it took there. The secret key stays in `home`."""

    def __init__(self, plan: ClientPlan, home: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, plan.to_json(), home), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(30)
        self._process.close()

    def make_keys(self, directory: Path) -> float:
        """Write every evaluation key of the plan to `directory`, as the server's key store names them."""
        return float(self._call("make_keys", directory)[1])

    @staticmethod
    def key_files(directory: Path) -> dict[int, str]:
        """What `make_keys` wrote: Galois element -> path, as a worker takes it."""
        return {int(path.stem): str(path) for path in directory.glob("*.key")}

    def encrypt(self, bucket: int, embedded: NDArray[np.float64]) -> tuple[dict[str, bytes], float]:
        """Messages by input name."""
        messages, seconds = self._call("encrypt", bucket, embedded)
        return messages, seconds

    def decrypt(self, bucket: int, answer: bytes) -> tuple[NDArray[np.float64], float]:
        """Logits of an answer."""
        logits, seconds = self._call("decrypt", bucket, answer)
        return logits, seconds

    def decrypt_rows(self, rows: NDArray[np.uint64], scale: float) -> NDArray[np.complex128]:
        """Slots of any ciphertext, given as canonical residues uint64 [2, level+1, N]."""
        return np.asarray(self._call("decrypt_rows", rows, scale)[0])

    def peak_bytes(self) -> int:
        """Peak memory of the client's process."""
        return int(self._call("peak_bytes")[0])

    def _call(self, name: str, *arguments: Any) -> tuple[Any, float]:
        self._pipe.send((name, arguments))
        try:
            result, seconds = self._pipe.recv()
        except EOFError:
            raise RuntimeError("the client's process ended; its own message is above") from None
        if isinstance(result, Exception):
            raise result
        return result, seconds


def _main(pipe: Connection, plan_json: Mapping[str, object], home: Path) -> None:
    # Imported in the new process only: SEAL is no part of a server's memory.
    from benchmarks.client_side import ClientSide

    client = ClientSide(ClientPlan.from_json(plan_json), home)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        started = time.perf_counter()
        try:
            result = getattr(client, name)(*arguments)
        except RangeError as error:
            result = error
        except Exception as error:  # others may not survive the pipe
            result = RuntimeError(f"the client failed: {type(error).__name__}: {error}")
        pipe.send((result, time.perf_counter() - started))
