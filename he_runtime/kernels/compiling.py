"""How kernels are compiled, and where compiled code is kept.

numba keeps a function's machine code on disk until the file that it is written in changes. But a kernel's code has that of the
kernels that it calls in it, from other files, and an upgrade in place would go on computing with what they were. So the
directory is named after all of them together.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

from he_runtime.cache_directory import default_cache_directory


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop over arrays: without the interpreter lock, kept on disk; a division by zero is no error."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(Path(before or default_cache_directory() / "kernels") / _digest_of_sources())
    try:
        return njit(error_model="numpy", nogil=True, boundscheck=False, cache=True)(function)
    finally:
        config.CACHE_DIR = before  # other code's functions go where they went


def inlined(function: Callable[..., Any]) -> Any:
    """Compile what becomes a part of every kernel that calls it."""
    return njit(error_model="numpy", inline="always")(function)


@functools.cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
