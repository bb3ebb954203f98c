"""Encoded plaintexts on disk: one file for each plan, mapped into memory and not copied.

Layout: a header (magic, length and SHA-256 of the table of contents, CRC-32 of the words, size of the file), the table of
contents as JSON, then the words of every entry, little-endian float64, each aligned to 64 bytes. Entries are known
by the SHA-256 of what was encoded, not by their position, so a lowering that changes its numbers never meets stale words.
A file that is not exactly what this plan would write is encoded again, never trusted.
"""

import contextlib
import hashlib
import json
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.numba_engine import NumbaEngine, NumbaPlaintext
from he_runtime.errors import HERuntimeError
from he_runtime.execution import encode_constant, encode_constants
from he_runtime.parameters import Parameters
from he_runtime.plan import Plan
from he_runtime.program import Constant

MAGIC = b"THEXPLAI"
FORMAT_VERSION = 2
ALIGNMENT = 64
_HEADER = struct.Struct("<8sQ32sIQ")
_WORD = np.dtype("<f8")
MOST_ENCODED_BYTES = 5_000_000_000
"""What plaintexts may take in memory before tables are kept compact, which costs a twentieth of a query's time."""


class CacheError(HERuntimeError):
    """A cache file that is damaged, or that another plan or version wrote. `constants_of` replaces it and never raises this."""


def wants_compact_tables(plan: Plan) -> bool:
    """Whether the plan's plaintexts would take more than MOST_ENCODED_BYTES, which an engine with compact tables avoids."""
    shapes = {
        _name(constant): words_shape(constant, plan.parameters, compact=False)
        for program in plan.programs.values()
        for constant in program.constants
    }
    return sum(math.prod(shape) for shape in shapes.values()) * _WORD.itemsize > MOST_ENCODED_BYTES


def cache_file(directory: Path, plan: Plan, engine: NumbaEngine) -> Path:
    """Where the plaintexts of this plan are kept."""
    return directory / f"plaintexts-{_digest(plan, engine)[:32]}.bin"


def constants_of(plan: Plan, engine: NumbaEngine, directory: Path | None) -> dict[int, list[NumbaPlaintext]]:
    """Bucket -> the program's plaintexts in order: mapped from the cache, or encoded and written to it.

    Without a directory nothing is read or written. A directory that cannot be written costs the cache, not the server.
    """
    if directory is None:
        known: dict[tuple[bytes, int, float], NumbaPlaintext] = {}
        return {bucket: encode_constants(program, engine, known) for bucket, program in plan.programs.items()}
    path = cache_file(directory, plan, engine)
    names = {bucket: [_name(constant) for constant in program.constants] for bucket, program in plan.programs.items()}
    wanted = {
        name: constant
        for bucket, program in plan.programs.items()
        for name, constant in zip(names[bucket], program.constants, strict=True)
    }
    entries: dict[str, NumbaPlaintext] = {}
    with contextlib.suppress(CacheError, OSError):
        entries = read(path, _digest(plan, engine), wanted, engine)
    if not entries:
        with contextlib.suppress(CacheError, OSError):
            # One after the other: all at once, a deep model's would not fit in memory. Mapped, they are the system's to drop and
            # to read again.
            write(path, _digest(plan, engine), wanted, engine)
            entries = read(path, _digest(plan, engine), wanted, engine)
    if not entries:
        entries = {name: encode_constant(constant, engine) for name, constant in wanted.items()}
    return {bucket: [entries[name] for name in names[bucket]] for bucket in plan.programs}


def write(path: Path, digest: str, wanted: Mapping[str, Constant], engine: NumbaEngine) -> None:
    """Encode and write a cache under a temporary name, then rename it: a reader sees the old file, the new one, or none."""
    table, offset, checksum = [], 0, 0
    for name, constant in wanted.items():
        shape = _shape(constant, engine)
        table.append([name, shape, float(constant.scale).hex(), offset])
        offset = _aligned(offset + math.prod(shape) * _WORD.itemsize)
    contents = json.dumps({"digest": digest, "entries": table}).encode()
    start = _aligned(_HEADER.size + len(contents))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # readable by its owner only
    try:
        with os.fdopen(handle, "wb") as file:
            file.seek(start)
            for constant in wanted.values():
                words = np.ascontiguousarray(encode_constant(constant, engine).words, _WORD).reshape(-1).view(np.uint8)
                for block in (words, np.zeros(_aligned(len(words)) - len(words), np.uint8)):
                    checksum = zlib.crc32(block.data, checksum)
                    file.write(block.data)
            file.seek(0)
            table_digest = hashlib.sha256(contents).digest()
            file.write(_HEADER.pack(MAGIC, len(contents), table_digest, checksum, start + offset) + contents)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, digest: str, wanted: Mapping[str, Constant], engine: NumbaEngine) -> dict[str, NumbaPlaintext]:
    """Name -> plaintext, views of the mapped file. CacheError for anything unexpected; OSError when there is no file."""
    if path.stat().st_uid != os.getuid():
        raise CacheError(f"{path} belongs to another user")
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) != _HEADER.size or not header.startswith(MAGIC):
            raise CacheError(f"{path} is not a cache of plaintexts")
        _, length, table_digest, checksum, size = _HEADER.unpack(header)
        if os.fstat(file.fileno()).st_size != size or length > size:
            raise CacheError(f"{path} is cut short")
        contents = file.read(length)
        if hashlib.sha256(contents).digest() != table_digest:
            raise CacheError(f"{path} has a damaged table of contents")
        # Copy on write, because numba compiles kernels anew for arrays that are marked read-only; nobody writes, nothing is
        # copied, and the file is open for reading only.
        words = np.memmap(file, _WORD, mode="c", offset=(start := _aligned(_HEADER.size + length)))
    if zlib.crc32(words.data) != checksum:
        raise CacheError(f"{path} has damaged words")
    table = json.loads(contents)
    if table["digest"] != digest:
        raise CacheError(f"{path} was written for another plan")
    return _views(path, np.asarray(words), table["entries"], wanted, engine, size - start)


def _views(
    path: Path,
    words: NDArray[np.float64],
    table: list[list[object]],
    wanted: Mapping[str, Constant],
    engine: NumbaEngine,
    size: int,
) -> dict[str, NumbaPlaintext]:
    entries = {}
    for name, shape, scale, offset in table:
        constant = wanted.get(str(name))
        plaintext_scale = float.fromhex(str(scale))
        if constant is None or plaintext_scale != constant.scale or shape != _shape(constant, engine):
            raise CacheError(f"{path} has an entry that the plan does not")
        expected = _shape(constant, engine)
        count = math.prod(expected)
        if not isinstance(offset, int) or offset % ALIGNMENT or not 0 <= offset <= size - count * _WORD.itemsize:
            raise CacheError(f"{path} has an entry outside its words")
        first = offset // _WORD.itemsize
        view = words[first : first + count].reshape(expected)
        entries[str(name)] = NumbaPlaintext(view, constant.level, plaintext_scale)
    if entries.keys() != wanted.keys():
        raise CacheError(f"{path} lacks {len(wanted.keys() - entries.keys())} entries of the plan")
    return entries


def words_shape(constant: Constant, parameters: Parameters, *, compact: bool) -> list[int]:
    """Shape of the words of a constant: a vector modulo Q, a linear transform's table modulo QP, or its coefficients."""
    rows, period = constant.level + 1, constant.values.shape[-1]
    if constant.values.ndim == 1:
        return [rows, 2 * period]
    sums, steps, _ = constant.values.shape
    table = [sums, 2 * period, steps]
    return table if compact else [rows + len(parameters.special_primes), *table]


def _shape(constant: Constant, engine: NumbaEngine) -> list[int]:
    return words_shape(constant, engine.parameters, compact=engine.is_compact(constant.values.shape))


def _digest(plan: Plan, engine: NumbaEngine) -> str:
    kind = f"{FORMAT_VERSION}-compact" if engine.compact_tables else str(FORMAT_VERSION)
    return hashlib.sha256(f"thex-plaintexts-{kind}\n{plan.digest}".encode()).hexdigest()


def _name(constant: Constant) -> str:
    """SHA-256 of what is encoded; the parameters are in the plan's digest."""
    return hashlib.sha256(f"{constant.level} {float(constant.scale).hex()}\n".encode() + constant.digest).hexdigest()


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
