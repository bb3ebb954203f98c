"""The frame of a fresh ciphertext, checked without numpy: what the server's front does before a worker sees a byte."""

from he_runtime.errors import WireError
from he_runtime.wire.message import FRESH_CIPHERTEXT, Binding, Frame, read_frame
from he_runtime.wire.sizes import input_ciphertext_body_bytes

SCALE_TOLERANCE = 2.0**-30


def check_fresh_frame(content: bytes | memoryview, binding: Binding, level: int) -> Frame:
    """A fresh ciphertext at this level and the standard scale; its residues are checked where they are unpacked."""
    frame = read_frame(content, binding, FRESH_CIPHERTEXT, input_ciphertext_body_bytes(binding.parameters, level))
    check_level_and_scale(frame, level, binding.parameters.scale)
    return frame


def check_level_and_scale(frame: Frame, level: int, scale: float) -> None:
    """WireError unless the ciphertext is at this level and scale and names no Galois element."""
    if frame.level != level:
        raise WireError("wrong_level", f"a ciphertext at level {frame.level}; the program wants level {level}")
    if frame.galois_element != 0:
        raise WireError("wrong_kind", "a ciphertext has no Galois element; the field must be 0")
    # Written so that NaN is refused too.
    if not abs(frame.scale - scale) <= scale * SCALE_TOLERANCE:
        raise WireError("wrong_scale", f"a ciphertext of scale {frame.scale!r}; the program wants {scale!r}")
