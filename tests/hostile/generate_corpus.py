"""Write the corpus of corrupt messages: `python -m tests.hostile.generate_corpus`.

Every file is named kind.defect.reason.bin: what it would be, what is wrong with it, and the reason that it must be refused with.
The same bytes come out at every run; a test compares them with what is committed.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.messages import FIELDS, HEAD, HEAD_BYTES, right_messages

CORPUS = Path(__file__).parent / "corpus"


def resealed(content: bytes) -> bytes:
    """The message with a digest that agrees: the sender is not clumsy but hostile."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def with_field(content: bytes, name: str, value: object) -> bytes:
    """The message with another value in its head, and a digest that agrees."""
    fields = list(HEAD.unpack_from(content))
    fields[FIELDS.index(name)] = value
    return resealed(HEAD.pack(*fields) + content[HEAD.size :])


def corrupt(kind: str, right: bytes) -> Iterator[tuple[str, str, bytes]]:
    """(defect, reason, bytes)."""
    body = HEAD_BYTES
    yield "empty", "bad_magic", b""
    yield "one-byte", "truncated", right[:1]
    yield "ends-in-the-magic", "truncated", right[:5]
    yield "ends-in-the-head", "truncated", right[:50]
    yield "ends-after-the-head", "truncated", right[:body]
    yield "ends-in-the-body", "truncated", right[: body + 100]
    yield "lacks-its-last-byte", "truncated", right[:-1]
    yield "one-byte-more", "trailing_bytes", right + b"\0"
    yield "twice-itself", "trailing_bytes", right + right
    yield "zeros", "bad_magic", bytes(len(right))
    yield "magic-of-another-case", "bad_magic", right[:8].lower() + right[8:]
    yield "protobuf-in-place", "bad_magic", b"\x0a\x20" + bytes(200)
    yield "zstd-in-place", "bad_magic", b"\x28\xb5\x2f\xfd" + bytes(200)
    yield "pickle-in-place", "bad_magic", b"\x80\x04\x95" + bytes(200)
    yield "secret-key-file", "secret_key_refused", b"THEXSECR" + right[8:]
    yield "secret-key-file-cut-short", "secret_key_refused", b"THEXSECR"
    yield "seal-object", "secret_key_refused", b"\x5e\xa1\x10\x04\x03\x02" + right[6:]
    yield "version-0", "wrong_version", with_field(right, "version", 0)
    yield "version-65535", "wrong_version", with_field(right, "version", 65535)
    others = {"key": 2, "fresh": 1, "result": 2, "answer": 2}
    yield "another-kind", "wrong_kind", with_field(right, "kind", others[kind])
    yield "kind-0", "wrong_kind", with_field(right, "kind", 0)
    yield "kind-65535", "wrong_kind", with_field(right, "kind", 65535)
    yield "level-of-2-to-the-32", "wrong_level", with_field(right, "level", 2**32 - 1)
    yield "level-one-too-high", "wrong_level", with_field(right, "level", HEAD.unpack_from(right)[3] + 1)
    if kind == "key":
        yield "element-never-planned", "unwanted_key", with_field(right, "element", 2**64 - 1)
        yield "element-even", "unwanted_key", with_field(right, "element", 2)
        yield "element-of-a-lower-key", "wrong_level", with_field(right, "element", 9)
        yield "scale-not-zero", "wrong_scale", with_field(right, "scale", 1.0)
        yield "scale-nan", "wrong_scale", with_field(right, "scale", math.nan)
    else:
        names = {"fresh": "wrong_kind", "result": "wrong_kind", "answer": "wrong_level"}
        yield "element-in-a-ciphertext", names[kind], with_field(right, "element", 3)
        for name, scale in {
            "nan": math.nan,
            "infinite": math.inf,
            "minus-one": -1.0,
            "zero": 0.0,
            "2-to-the-900": 2.0**900,
            "denormal": 5e-324,
            "off-by-a-millionth": 2.0**36 * (1 + 1e-6),
        }.items():
            yield f"scale-{name}", "wrong_scale", with_field(right, "scale", scale)
    yield "other-parameters", "wrong_parameters", with_field(right, "parameters", bytes(32))
    yield "other-program", "wrong_program", with_field(right, "program", bytes(32))
    yield (
        "bit-flipped-in-the-body",
        "digest_mismatch",
        right[: body + 70] + bytes([right[body + 70] ^ 1]) + right[body + 71 :],
    )
    yield "bit-flipped-in-the-digest", "digest_mismatch", right[:-1] + bytes([right[-1] ^ 128])
    yield "digest-of-zeros", "digest_mismatch", right[:-32] + bytes(32)
    if kind != "answer":  # of an answer only top bits are sent, and q0 here begins with 32 ones
        start = body + (0 if kind == "result" else 64)
        yield (
            "residues-of-all-ones",
            "residue_out_of_range",
            resealed(right[:start] + b"\xff" * 90 + right[start + 90 :]),
        )


def generate(directory: Path) -> None:
    """Write all of it."""
    directory.mkdir(parents=True, exist_ok=True)
    for kind, right in right_messages().items():
        for defect, reason, content in corrupt(kind, right):
            (directory / f"{kind}.{defect}.{reason}.bin").write_bytes(content)


if __name__ == "__main__":
    generate(CORPUS)
