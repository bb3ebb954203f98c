"""The frame that every message of ours has: who made it for what, and a digest over all of it. See docs/wire.md.

    magic      8 bytes   "THEXWIRE"
    version    u16       1
    kind       u16       1 evaluation key, 2 fresh ciphertext, 3 result ciphertext
    level      u32
    element    u64       Galois element of a key (0: relinearisation); 0 otherwise
    scale      f64       scale of a ciphertext; 0 for a key
    parameters 32 bytes  digest of the parameter set
    program    32 bytes  digest of the program
    body       of the exact size that kind, level and parameters imply
    digest     32 bytes  SHA-256 of everything before it

All integers are little-endian. Sizes are known before a byte is copied, so nothing a peer says decides an allocation.
"""

import hashlib
import struct
from dataclasses import dataclass

from he_runtime.errors import WireError
from he_runtime.parameters import Parameters

_FRAME = struct.Struct("<8sHHIQd32s32s")
MAGIC = b"THEXWIRE"
VERSION = 1
DIGEST_BYTES = 32
OVERHEAD_BYTES = _FRAME.size + DIGEST_BYTES

EVALUATION_KEY, FRESH_CIPHERTEXT, RESULT_CIPHERTEXT = 1, 2, 3
_KINDS = {
    EVALUATION_KEY: "evaluation key",
    FRESH_CIPHERTEXT: "fresh ciphertext",
    RESULT_CIPHERTEXT: "result ciphertext",
}

SECRET_STORE_MAGIC = b"THEXSECR"
_SEAL_MAGIC = b"\x5e\xa1"


@dataclass(frozen=True)
class Frame:
    """The checked head of a message, and its body."""

    kind: int
    level: int
    galois_element: int
    scale: float
    body: memoryview


@dataclass(frozen=True)
class Binding:
    """What a message must be bound to."""

    parameters: Parameters
    program_digest: str


def write_frame(binding: Binding, kind: int, level: int, galois_element: int, scale: float, body: bytes) -> bytes:
    """One message."""
    head = _FRAME.pack(
        MAGIC,
        VERSION,
        kind,
        level,
        galois_element,
        scale,
        bytes.fromhex(binding.parameters.digest),
        bytes.fromhex(binding.program_digest),
    )
    return head + body + hashlib.sha256(head + body).digest()


def peek(content: bytes | memoryview) -> tuple[int, int, int]:
    """Kind, level and Galois element that a message claims, to know its size from; nothing is checked but the frame."""
    _refuse_foreign(content)
    if len(content) < _FRAME.size:
        raise WireError("truncated", f"{len(content)} bytes; a message has at least {OVERHEAD_BYTES}")
    _, _, kind, level, element, *_ = _FRAME.unpack_from(content)
    return kind, level, element


def read_frame(content: bytes | memoryview, binding: Binding, kind: int, body_bytes: int) -> Frame:
    """Check everything but the body's meaning. WireError with a stable reason for each defect."""
    view = memoryview(content)
    _refuse_foreign(view)
    expected = OVERHEAD_BYTES + body_bytes
    if len(view) < expected:
        raise WireError("truncated", f"a {_KINDS[kind]} has {expected} bytes here, not {len(view)}; send all of it")
    if len(view) > expected:
        raise WireError("trailing_bytes", f"a {_KINDS[kind]} has {expected} bytes here, not {len(view)}")
    _, version, claimed, level, element, scale, parameters, program = _FRAME.unpack_from(view)
    if version != VERSION:
        raise WireError("wrong_version", f"wire version {version}; this side speaks version {VERSION}")
    if claimed != kind:
        raise WireError("wrong_kind", f"expected a {_KINDS[kind]}, got {_KINDS.get(claimed, f'kind {claimed}')}")
    if parameters != bytes.fromhex(binding.parameters.digest):
        raise WireError("wrong_parameters", "made for other encryption parameters; fetch the server's plan again")
    if program != bytes.fromhex(binding.program_digest):
        raise WireError("wrong_program", "made for another model or program; fetch the server's plan again")
    if hashlib.sha256(view[:-DIGEST_BYTES]).digest() != view[-DIGEST_BYTES:]:
        raise WireError("digest_mismatch", "the bytes differ from their own digest; they were damaged on the way")
    return Frame(kind, level, element, scale, view[_FRAME.size : -DIGEST_BYTES])


def _refuse_foreign(content: bytes | memoryview) -> None:
    start = bytes(content[:8])
    if start == SECRET_STORE_MAGIC or start[:2] == _SEAL_MAGIC:
        raise WireError(
            "secret_key_refused",
            "this looks like a secret key file or a raw SEAL object; a secret key must never leave its owner",
        )
    if start[: min(8, len(content))] != MAGIC[: min(8, len(content))] or len(content) == 0:
        raise WireError("bad_magic", "not a message of this protocol")
