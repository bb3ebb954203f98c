"""What a server needs of its machine, checked one by one. Nothing here changes anything."""

import os
import platform
import resource
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509

from services.server.limits import GIBIBYTE, Limits
from services.server.tls import CERTIFICATE, PRIVATE_KEY

State = Literal["good", "warning", "bad"]
SAFE_SEAL = (4, 4)
"""The first version whose readers of foreign bytes were hardened; the server uses none of them, clients read only answers."""


@dataclass(frozen=True)
class Finding:
    """One check."""

    what: str
    state: State
    found: str


def examine(bundle: Path, certificates: Path, tokens: Path, key_directory: Path) -> list[Finding]:
    """All checks, in order."""
    return [
        _python(),
        _processor(),
        *_memory(),
        _files(),
        _disk(key_directory),
        _bundle(bundle),
        *_certificates(certificates),
        _tokens(tokens),
        _seal(),
    ]


def _python() -> Finding:
    good = sys.version_info >= (3, 11) and sys.platform == "linux" and platform.machine() == "x86_64"
    found = f"{platform.python_version()} on {sys.platform} {platform.machine()}"
    return Finding("Python", "good" if good else "bad", found if good else f"{found}; needs 3.11 on Linux x86_64")


def _processor() -> Finding:
    flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split())
    cores = len(os.sched_getaffinity(0))
    if "fma" not in flags:
        return Finding("processor", "bad", "has no fused multiply-add, which the kernels' exactness rests on")
    fast = {"avx2", "avx512f", "avx512ifma"} & flags
    return Finding("processor", "good" if fast else "warning", f"{cores} cores, {', '.join(sorted(fast)) or 'no AVX2'}")


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state: State = "good" if total >= 4 * GIBIBYTE else "warning"
    yield Finding("memory", state, f"{total / GIBIBYTE:.1f} GiB; the shipped model takes about 3 with two clients")
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    yield Finding("core dumps", "good", "of workers are switched off by the server" if hard else "are off")


def _files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding("open files", "good" if soft >= 1024 else "warning", f"{soft} allowed; 1024 are wanted")


def _disk(directory: Path) -> Finding:
    place = directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    limits = Limits.model_validate({})
    wanted = limits.key_store_bytes + limits.disk_reserve_bytes
    if not os.access(place, os.W_OK):
        return Finding("key directory", "bad", f"{place} cannot be written")
    state: State = "good" if free >= wanted else "warning" if free >= limits.disk_reserve_bytes else "bad"
    return Finding("key directory", state, f"{free / 1e9:.1f} GB free; the store may take {wanted / 1e9:.1f} GB")


def _bundle(path: Path) -> Finding:
    from he_runtime.bundle import Bundle
    from he_runtime.errors import BundleError
    from he_runtime.planner import plan_bundle

    try:
        plan = plan_bundle(Bundle.open(path))
    except BundleError as error:
        return Finding("bundle", "bad", str(error))
    bits = plan.parameters.modulus_bits
    return Finding("bundle", "good", f"N={plan.parameters.ring_degree}, {plan.levels} levels, log2(QP)={bits:.0f}")


def _certificates(directory: Path) -> Iterator[Finding]:
    certificate, key = directory / CERTIFICATE, directory / PRIVATE_KEY
    if not (certificate.exists() and key.exists()):
        yield Finding("certificate", "bad", f"{directory} holds none; get one, or make one with `thex certs`")
        return
    left = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc - datetime.now(UTC)
    state: State = "bad" if left < timedelta(0) else "warning" if left < timedelta(days=7) else "good"
    yield Finding("certificate", state, f"good for {left.days} days")
    private = not key.stat().st_mode & 0o077
    yield Finding("private key", "good" if private else "bad", "private" if private else f"others can read {key}")


def _tokens(path: Path) -> Finding:
    from services.server.identity import TokenFile

    if not path.exists():
        return Finding("tokens", "warning", f"{path} does not exist; `thex tokens add` makes it")
    if path.stat().st_mode & 0o077:
        return Finding("tokens", "bad", f"others can read {path}; run chmod 600 on it")
    try:
        return Finding("tokens", "good", f"{len(TokenFile(path).tokens())} tokens")
    except ValueError as error:
        return Finding("tokens", "bad", str(error))


def _seal() -> Finding:
    """The version in the header that SEAL writes; only clients use it."""
    try:
        import numpy as np

        from he_runtime.parameters import make_parameters
        from he_runtime.seal import SealClient
        from he_runtime.seal_format import MemoryFile
    except ImportError:
        return Finding("SEAL", "good", "not installed, and a server needs none")
    client = SealClient(make_parameters(1024, 1, insecure_test=True))
    content = MemoryFile().save(client.to_seal(np.ones((2, 1, 1024), np.uint64), 1.0))
    version = struct.unpack_from("<HBBB", content)[2:4]
    state: State = "good" if version >= SAFE_SEAL else "warning"
    text = f"{version[0]}.{version[1]} in clients on this machine"
    return Finding("SEAL", state, text if state == "good" else f"{text}; 4.4 hardened its readers of foreign bytes")
