"""Running a program before any client has sent anything, so that the first query finds its memory in place.

Keys, intermediate values and scratch take hundreds of megabytes, and the first touch of a page costs the system more than the
arithmetic on it. With keys and inputs of zeros a run touches as much memory as a real one; `allocation.keep_freed_memory` has
it kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.execution import run
from he_runtime.program import Program


def rehearse(
    program: Program, engine: NumbaEngine, constants: list[Any], keys: Mapping[int, int]
) -> dict[str, NumbaCiphertext]:
    """One run on zeros: its outputs. The engine's own keys are neither needed nor touched.

    keys: Galois element -> level of all keys that a client sends, those of other programs too.
    """
    rehearsing = engine.with_zero_keys(keys)
    degree = engine.parameters.ring_degree
    inputs = {
        name: rehearsing.from_rows(np.zeros((2, value.level + 1, degree), np.uint64), value.scale)
        for name, value in program.inputs.items()
    }
    return run(program, rehearsing, constants, inputs)
