"""SEAL 4.x serialisation of ciphertexts, plaintexts and secret keys, to and from numpy.

SEAL's Python binding saves and loads by path only, so objects pass through an anonymous file in memory. A header is
`<HBBBBHQ`: magic 0xA15E, header size 16, version, compression (0: none), reserved, total size.
"""

import os
import struct
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_VERSION = (4, 3)
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parms_id, is_ntt, parts, N, primes, scale, correction factor
_PLAINTEXT = struct.Struct("<32sQd")  # parms_id, coefficients, scale
_ARRAY = struct.Struct("<HBBBBHQQ")  # a header and a count
SEED_BYTES = 64


@dataclass(frozen=True)
class SealCiphertext:
    """A ciphertext as SEAL wrote it. rows: uint64 [parts, primes, N]; with a seed only the first part is stored."""

    scale: float
    rows: NDArray[np.uint64]
    seed: bytes | None


class MemoryFile:
    """An anonymous file in memory that SEAL can save to and load from by path; one thread at a time, empty in between."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("seal")
        self._path = f"/proc/self/fd/{self._descriptor}"
        self._turn = threading.Lock()

    def save(self, thing: Any) -> bytes:
        """The bytes that a SEAL object saves, uncompressed objects and zstd alike."""
        with self._turn:
            try:
                thing.save(self._path)
                return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
            finally:
                os.ftruncate(self._descriptor, 0)

    def load(self, thing: Any, context: Any, parts: list[bytes | memoryview]) -> Any:
        """Load `thing` from the concatenation of `parts`."""
        with self._turn:
            try:
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[os.write(self._descriptor, view) :]
                thing.load(context, self._path)
                return thing
            finally:
                os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Forget the content."""
        os.close(self._descriptor)


def _payload(content: bytes) -> memoryview:
    magic, header_size, _, _, compression, _, size = _HEADER.unpack_from(content)
    if magic != _MAGIC or header_size != _HEADER.size or size != len(content):
        raise ValueError("not a SEAL object: its header is wrong")
    body = memoryview(content)[_HEADER.size :]
    if compression == 2:
        import zstandard

        return memoryview(zstandard.ZstdDecompressor().decompressobj().decompress(body))
    if compression:
        raise ValueError(f"SEAL compression {compression} is not supported; expected none or zstd")
    return body


def read_ciphertext(content: bytes) -> SealCiphertext:
    """Parse a saved ciphertext, seeded or whole."""
    body = _payload(content)
    _, _, parts, degree, primes, scale, _ = _CIPHERTEXT.unpack_from(body)
    count = _ARRAY.unpack_from(body, _CIPHERTEXT.size)[-1]
    start = _CIPHERTEXT.size + _ARRAY.size
    values = np.frombuffer(body, np.uint64, count, start)
    if count == degree * primes and parts == 2:
        tail = body[start + 8 * count :]
        seed_start = _HEADER.size + 1  # a header, then the generator's type
        return SealCiphertext(
            scale, values.reshape(1, primes, degree), bytes(tail[seed_start : seed_start + SEED_BYTES])
        )
    return SealCiphertext(scale, values.reshape(parts, primes, degree), None)


def ciphertext_parts(parms_id: bytes, rows: NDArray[np.uint64], scale: float) -> list[bytes | memoryview]:
    """A whole ciphertext for SEAL to load. rows: uint64 [parts, primes, N], canonical."""
    parts, primes, degree = rows.shape
    body = _CIPHERTEXT.pack(parms_id, 1, parts, degree, primes, scale, 1) + _array_header(rows.size)
    return [_header(len(body) + 8 * rows.size) + body, np.ascontiguousarray(rows).data.cast("B")]


def read_plaintext(content: bytes) -> NDArray[np.uint64]:
    """The residues of a saved plaintext or secret key, flat."""
    body = _payload(content)
    count = _ARRAY.unpack_from(body, _PLAINTEXT.size)[-1]
    return np.frombuffer(body, np.uint64, count, _PLAINTEXT.size + _ARRAY.size)


def plaintext_parts(parms_id: bytes, values: NDArray[np.uint64], scale: float) -> list[bytes | memoryview]:
    """A plaintext or secret key for SEAL to load. values: uint64, flat."""
    body = _PLAINTEXT.pack(parms_id, values.size, scale) + _array_header(values.size)
    return [_header(len(body) + 8 * values.size) + body, np.ascontiguousarray(values).data.cast("B")]


def _header(payload_size: int) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, 0, 0, _HEADER.size + payload_size)


def _array_header(count: int) -> bytes:
    return _ARRAY.pack(_MAGIC, _HEADER.size, *_VERSION, 0, 0, _ARRAY.size + 8 * count, count)
