"""Evaluation keys on disk, crash-safe at any byte.

    index.sqlite                       what is here (key_index.py)
    partial/<key set>-<element>        a key on its way: its length is how far the upload got
    objects/<tenant>/<digest>          a whole key under the digest that its frame carries, checked

A key is written to its partial file, checked, synced, renamed to its digest, the directory synced, and only then entered in the
index and acknowledged. What a crash leaves behind (files without a row, partial files of no set) is removed at the next start.
Content is shared within a tenant only: across tenants it would tell one what another has.

Time is counted in seconds of the server's uptime by the monotonic clock, and kept in the index: neither a jump of the wall
clock nor a long downtime makes keys expire.

Pure Python. One thread at a time: the front runs all of it on one thread of its own.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from he_runtime.errors import WireError
from he_runtime.wire.message import DIGEST_BYTES, EVALUATION_KEY, peek, read_frame
from he_runtime.wire.sizes import evaluation_key_body_bytes, evaluation_key_bytes
from services.server.key_index import KeyIndex
from services.server.limits import Limits
from services.server.model import ServedModel

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Removed = Callable[[str, str], None]
"""Called as removed(key set, reason) for every set that goes: deleted, expired, evicted, unfinished or replaced."""


@dataclass(frozen=True)
class Partial:
    """A key of which a part is here."""

    element: int
    size_bytes: int
    sha256: bytes


class KeyStore:
    """All key sets of one served model, under one private directory."""

    def __init__(
        self,
        directory: Path,
        model: ServedModel,
        limits: Limits,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        on_removed: Removed = lambda _name, _reason: None,
    ) -> None:
        self.directory, self.model, self.limits = directory, model, limits
        self._objects, self._partial = directory / "objects", directory / "partial"
        for place in (directory, self._objects, self._partial):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._monotonic, self._on_removed = monotonic, on_removed
        self._sizes = {e: evaluation_key_bytes(model.binding.parameters, level) for e, level in model.keys.items()}
        self._pins: Counter[str] = Counter()
        self._leaving: dict[str, set[tuple[str, str]]] = {}  # removed while pinned: (tenant, digest) of the files
        self.set_bytes = sum(self._sizes.values())
        """Bytes of one whole key set."""
        with _disk_full():
            self.index = KeyIndex(directory / "index.sqlite")
            self._started, self._offset = monotonic(), self.index.clock()
            self._recover()

    @property
    def now(self) -> float:
        """The store's clock."""
        return self._offset + self._monotonic() - self._started

    def close(self) -> None:
        """Keep the clock; close the index."""
        with contextlib.suppress(sqlite3.Error):
            self.index.set_clock(self.now)
        self.index.close()

    # --- key sets --------------------------------------------------------------------------------------------------

    def create(self, tenant: str) -> str:
        """A new, empty key set; its name is 128 random bits. Makes room by evicting the set that was longest unused."""
        if len(self.index.sets_of(tenant)) >= self.limits.key_sets_per_client:
            raise WireError(
                "quota_exceeded",
                f"{self.limits.key_sets_per_client} key sets of yours are here, which is all you may have; delete one "
                "(`thex keys rm`)",
            )
        self._make_room()
        name = secrets.token_hex(16)
        with _disk_full():
            self.index.add_set(name, tenant, self.model.binding.program_digest, self.set_bytes, self.now)
        return name

    def check(self, key_set: str, tenant: str) -> None:
        """WireError unknown_key_set unless this tenant has a set of this name."""
        if len(key_set) != 32 or not self.index.has_set(key_set, tenant):
            raise WireError("unknown_key_set", "there are no keys of that name here; upload them again")

    def complete(self, key_set: str, tenant: str) -> list[int]:
        """Galois elements of the keys that are whole."""
        self.check(key_set, tenant)
        return sorted(self.index.keys(key_set))

    def partial(self, key_set: str) -> Partial | None:
        """The key that was on its way last, if a part of it is here.

        One only: a client sends keys one after the other, and hashing a part of every key would hold this thread for as long as
        somebody cares to ask.
        """
        paths = list(self._partial.glob(f"{key_set}-*"))
        if not paths:
            return None
        path = max(paths, key=lambda each: each.stat().st_mtime_ns)
        content = path.read_bytes()
        return Partial(int(path.name.partition("-")[2]), len(content), hashlib.sha256(content).digest())

    def is_complete(self, key_set: str, tenant: str) -> bool:
        """Whether every key of the program is there."""
        return set(self.complete(key_set, tenant)) == set(self.model.keys)

    def files(self, key_set: str, tenant: str) -> dict[int, str]:
        """Galois element -> path of its file; the set counts as used now."""
        self.check(key_set, tenant)
        with contextlib.suppress(sqlite3.OperationalError):  # on a full disk the keys that are here still serve
            self.index.touch(key_set, self.now)
        return {element: str(self._objects / tenant / digest) for element, digest in self.index.keys(key_set).items()}

    def delete(self, key_set: str, tenant: str) -> None:
        """Forget a set now; its files go when nobody computes with them."""
        self.check(key_set, tenant)
        self._remove(key_set, "deleted")

    def delete_all(self, tenant: str) -> list[str]:
        """Forget every set of a tenant; their names."""
        names = self.index.sets_of(tenant)
        for name in names:
            self._remove(name, "deleted")
        return names

    def pin(self, key_set: str) -> None:
        """Keep the files of this set until `unpin`, whatever is deleted meanwhile."""
        self._pins[key_set] += 1

    def unpin(self, key_set: str) -> None:
        """One user less."""
        self._pins[key_set] -= 1
        if self._pins[key_set] <= 0:
            del self._pins[key_set]
            self._unlink_unneeded(self._leaving.pop(key_set, set()))

    # --- uploads ---------------------------------------------------------------------------------------------------

    def append(self, key_set: str, tenant: str, element: int, offset: int, data: bytes) -> bool:
        """Add a chunk of one key; True when that made it whole.

        A chunk at offset 0 begins the key anew. WireError for anything that is not as planned; the partial file is then gone,
        except after a wrong offset or a full disk, where what is here stays good.
        """
        self.check(key_set, tenant)
        if element not in self.model.keys:
            raise WireError("unwanted_key", f"Galois element {element} is not among the program's keys")
        expected = self._sizes[element]
        path = self._partial / f"{key_set}-{element}"
        if offset == 0:
            path.unlink(missing_ok=True)
        present = path.stat().st_size if path.exists() else 0
        if offset != present:
            raise WireError(
                "wrong_offset", f"a chunk at offset {offset}; {present} bytes are here: go on there or at 0"
            )
        try:
            if offset == 0:
                peek(data)  # refuses secret keys and garbage at their first bytes
            if present + len(data) > expected:
                raise WireError("oversize", f"this key has {expected} bytes; more were sent")
            if self.free_bytes() < self.limits.disk_reserve_bytes + len(data):
                raise _full()
            with _disk_full():
                self._write(path, data)
            if present + len(data) < expected:
                return False
            digest = self._check(path, element)
        except WireError as error:
            if error.reason != "disk_full":
                path.unlink(missing_ok=True)
            raise
        with _disk_full():
            self._keep(path, key_set, tenant, element, digest)
        return True

    def _write(self, path: Path, data: bytes) -> None:
        """Append, or leave the file as it was: half a chunk would put the next one at the wrong place."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        before = os.fstat(descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        finally:
            os.close(descriptor)

    def _check(self, path: Path, element: int) -> str:
        level = self.model.keys[element]
        body = evaluation_key_body_bytes(self.model.binding.parameters, level)
        content = path.read_bytes()
        frame = read_frame(content, self.model.binding, EVALUATION_KEY, body)
        if frame.galois_element != element or frame.level != level:
            raise WireError("wrong_level", f"the key says Galois element {frame.galois_element}, level {frame.level}")
        if frame.scale != 0.0:
            raise WireError("wrong_scale", "a key has no scale; the field must be 0")
        return content[-DIGEST_BYTES:].hex()

    def _keep(self, path: Path, key_set: str, tenant: str, element: int, digest: str) -> None:
        place = self._objects / tenant
        place.mkdir(mode=0o700, exist_ok=True)
        _sync(path)
        path.rename(place / digest)
        _sync(place)
        _sync(self._objects)
        former = self.index.keys(key_set).get(element)
        self.index.add_key(key_set, element, digest)
        if former is not None and former != digest:
            if self._pins[key_set]:
                self._leaving.setdefault(key_set, set()).add((tenant, former))
            else:
                self._unlink_unneeded({(tenant, former)})
        self.index.touch(key_set, self.now)
        if self.index.keys(key_set).keys() == self.model.keys.keys():
            self.index.mark_whole(key_set)

    # --- room ------------------------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Free space of the disk, for processes without privileges."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize

    def sweep(self) -> None:
        """Delete what is unused for too long; keep the clock. To be called now and then."""
        with _disk_full():
            now = self.now
            self.index.set_clock(now)
            old = self.index.unused_since(now - self.limits.key_store_seconds, now - self.limits.unfinished_seconds)
            for name in old:
                if not self._pins[name]:
                    self._remove(name, "expired")

    def _make_room(self) -> None:
        if self.set_bytes > self.limits.key_store_bytes:
            raise WireError(
                "store_full",
                f"one key set takes {self.set_bytes} bytes and the store's budget is {self.limits.key_store_bytes}: "
                "the operator must raise limits.key_store_bytes",
            )
        for name, size in self.index.by_age():
            if self.index.reserved_bytes() + self.set_bytes <= self.limits.key_store_bytes:
                break
            if not self._pins[name] and size:
                self._remove(name, "evicted")
        if self.index.reserved_bytes() + self.set_bytes > self.limits.key_store_bytes:
            raise WireError(
                "store_full", "all keys here are in use and there is no room for more; try again in a minute"
            )
        if self.free_bytes() < self.limits.disk_reserve_bytes + self.set_bytes:
            raise _full()

    def _remove(self, name: str, reason: str) -> None:
        tenant = self.index.tenant_of(name)
        digests = set(self.index.keys(name).values())
        with _disk_full():
            self.index.remove_set(name)
        for path in self._partial.glob(f"{name}-*"):
            path.unlink(missing_ok=True)
        files = {(str(tenant), digest) for digest in digests}
        if self._pins[name]:
            self._leaving[name] = files
        else:
            self._unlink_unneeded(files)
        self._on_removed(name, reason)

    def _unlink_unneeded(self, files: set[tuple[str, str]]) -> None:
        pinned = set().union(*self._leaving.values())
        for tenant, digest in files - pinned:
            if not self.index.is_needed(tenant, digest):
                (self._objects / tenant / digest).unlink(missing_ok=True)
        for tenant in {tenant for tenant, _ in files}:
            with contextlib.suppress(OSError):
                (self._objects / tenant).rmdir()  # only when it is empty

    def _recover(self) -> None:
        """Bring files and index in step again, whatever moment the last process ended at."""
        for name in self.index.of_other_programs(self.model.binding.program_digest):
            self._remove(name, "replaced")
        for name in self.index.names():
            tenant = self.index.tenant_of(name)
            for element, digest in self.index.keys(name).items():
                path = self._objects / str(tenant) / digest
                size = self._sizes.get(element)
                if not path.is_file() or path.stat().st_size != size:
                    self.index.remove_key(name, element)  # someone took the file away: the client sends it again
        names = set(self.index.names())
        for path in self._partial.iterdir():
            name, _, number = path.name.partition("-")
            if name not in names or not number.isdecimal() or int(number) not in self.model.keys:
                path.unlink()
        needed = self.index.files()
        for place in self._objects.iterdir():
            for path in place.iterdir():
                if (place.name, path.name) not in needed:
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.rmdir()

    def destroy(self) -> None:
        """Delete everything. For stores that are temporary."""
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _full() -> WireError:
    return WireError(
        "disk_full", "the server's disk is full; what was acknowledged stays: try again later, or tell the operator"
    )


@contextlib.contextmanager
def _disk_full() -> Iterator[None]:
    """Every way in which a full disk shows, as one refusal."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full() from None
        raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise _full() from None
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
