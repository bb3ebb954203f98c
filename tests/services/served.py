"""A served model for tests of the front's parts: real frames on a ring of 16, no worker."""

import hashlib
import json
from pathlib import Path

from he_runtime.parameters import make_parameters
from he_runtime.wire.message import EVALUATION_KEY, Binding, write_frame
from he_runtime.wire.sizes import evaluation_key_body_bytes, evaluation_key_bytes
from services.server.model import ServedModel

PARAMETERS = make_parameters(16, 2, insecure_test=True)
PROGRAM = hashlib.sha256(b"a program").hexdigest()
BINDING = Binding(PARAMETERS, PROGRAM)
KEYS = {0: 2, 3: 2, 9: 1}
KEY_SET_BYTES = sum(evaluation_key_bytes(PARAMETERS, level) for level in KEYS.values())
ALICE, BOB = "a" * 32, "b" * 32


def served_model(directory: Path) -> ServedModel:
    plan = {
        "parameters": PARAMETERS.to_json(),
        "program_digest": PROGRAM,
        "keys": {str(element): level for element, level in KEYS.items()},
        "buckets": {"4": {"text.0": 2}},
    }
    return ServedModel.from_plan(plan, json.dumps(plan), {"config.json": b"{}"})


def key_message(element: int, *, fill: int = 0, level: int | None = None) -> bytes:
    """A key with a right frame; its residues are what `fill` says, which only a worker looks at."""
    at = KEYS[element] if level is None else level
    body = bytes([fill]) * evaluation_key_body_bytes(PARAMETERS, at)
    return write_frame(BINDING, EVALUATION_KEY, at, element, 0.0, body)
