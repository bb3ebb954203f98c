"""A real server on this machine, for the demo and for benchmarks: another process, TLS, a certificate of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.certificates import make_certificates

READY_SECONDS = 300


@dataclass(frozen=True)
class LocalServer:
    """Where it listens, and whom to trust."""

    target: str
    authority: Path
    process_id: int
    directory: Path
    """Where it keeps certificates, keys and log."""
    metrics_port: int | None = None


@contextlib.contextmanager
def local_server(
    bundle: Path,
    *,
    threads: int = 2,
    cache_directory: Path | None = None,
    directory: Path | None = None,
    port: int = 0,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[LocalServer]:
    """Start `thex serve` on a loopback port (a free one unless given); stop it at the end.

    `directory` keeps its certificates and keys for a next server; `settings` are given as `--set`.
    RuntimeError with its last words if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="thex-server-") as temporary:
        directory = directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        authority = directory / "certificates" / "authority.pem"
        if not authority.exists():
            make_certificates(directory / "certificates")
        with (directory / "log").open("a+") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services.cli.main", "serve", str(bundle), "--json"),
                    *("--address", f"127.0.0.1:{port}", "--threads", str(threads)),
                    *("--certificates", str(directory / "certificates"), "--key-directory", str(directory / "keys")),
                    *(("--cache-directory", str(cache_directory)) if cache_directory is not None else ()),
                    *(
                        part
                        for name, value in {"limits.notice_seconds": 0, **settings}.items()
                        for part in ("--set", f"{name}={value}")
                    ),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                ready = _ready(process)
                if ready is None:
                    log.seek(0)
                    raise ChildProcessError(f"the server did not start: {log.read()[-500:]}")
                reader = threading.Thread(target=_keep, args=(process, directory / "lines"), daemon=True)
                reader.start()
                target = f"127.0.0.1:{ready['port']}"
                yield LocalServer(target, authority, process.pid, directory, ready.get("metrics_port"))
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()


def _keep(process: "subprocess.Popen[str]", path: Path) -> None:
    """Log lines to a file: a pipe that nobody reads would stop the server."""
    with path.open("a") as file, contextlib.suppress(ValueError):
        for line in process.stdout or ():
            file.write(line)
            file.flush()


def _ready(process: "subprocess.Popen[str]") -> dict[str, Any] | None:
    """The server's ready message, which is a JSON object among its log lines."""
    if process.stdout is None:
        return None
    collected = ""
    for line in process.stdout:
        if line.startswith("{"):
            collected = ""
        collected += line
        with contextlib.suppress(ValueError):
            message = json.loads(collected)
            if isinstance(message, dict) and message.get("ready") is True:
                return message
    return None
