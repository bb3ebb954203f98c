"""How a process that evaluates programs should treat freed memory: keep it.

Ciphertexts are arrays of several megabytes that live for milliseconds. By default the C library gives each back to the system and
the next one is mapped afresh, page by page: measured, 4 ms of the 20 ms that a rotation at 16 primes took.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_KEPT = 1 << 31  # less one byte: the parameter is a C int


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed from now on, for the whole process. False where it is not glibc.

    What was freed before goes back to the system first, so call this after start-up's own large arrays are gone.
    """
    library = _library()
    if library is None:
        return False
    library.malloc_trim(0)
    # No block is mapped alone, however large. Other arenas than the main one hold no large block, so threads would map again.
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT - 1))
    return all(library.mallopt(name, value) == 1 for name, value in wanted)


def give_back_freed_memory() -> None:
    """Have the C library give what is free to the system: arrays below 32 MB leave gigabytes of gaps. Without glibc nothing."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        _ = library.mallopt, library.malloc_trim
    except (AttributeError, OSError):
        return None
    return library
