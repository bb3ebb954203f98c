"""A real server on this machine, for the demo and for benchmarks: another process, TLS, a certificate of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.certificates import make_certificates

READY_SECONDS = 300


@dataclass(frozen=True)
class LocalServer:
    """Where it listens, and whom to trust."""

    target: str
    authority: Path
    process_id: int


@contextlib.contextmanager
def local_server(bundle: Path, *, threads: int = 2, cache_directory: Path | None = None) -> Iterator[LocalServer]:
    """Start `thex serve` on a free loopback port; stop it at the end. RuntimeError with its last words if it does not start."""
    with tempfile.TemporaryDirectory(prefix="thex-server-") as temporary:
        directory = Path(temporary)
        certificates = make_certificates(directory / "certificates")
        with (directory / "log").open("w+") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services.cli.main", "serve", str(bundle), "--json"),
                    *("--address", "127.0.0.1:0", "--threads", str(threads)),
                    *("--certificates", str(directory / "certificates"), "--key-directory", str(directory / "keys")),
                    *(("--cache-directory", str(cache_directory)) if cache_directory is not None else ()),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                port = _port(process)
                if port is None:
                    log.seek(0)
                    raise RuntimeError(f"the server did not start: {log.read()[-500:]}")
                yield LocalServer(f"127.0.0.1:{port}", certificates.authority, process.pid)
            finally:
                process.terminate()
                if process.stdout is not None:
                    process.stdout.close()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def _port(process: "subprocess.Popen[str]") -> int | None:
    """The port from the server's ready message, which is a JSON object among its log lines."""
    if process.stdout is None:
        return None
    collected = ""
    for line in process.stdout:
        if line.startswith("{"):
            collected = ""
        collected += line
        with contextlib.suppress(ValueError):
            message = json.loads(collected)
            if isinstance(message, dict) and message.get("ready"):
                return int(message["port"])
    return None
