"""Operations of the numba engine beside SEAL's, taking turns in one run, one thread each; medians."""

from collections.abc import Callable

from benchmarks.encodings import encoding_rows, key_rows
from benchmarks.key_switching import key_switching_rows
from benchmarks.machine import machine
from benchmarks.matrices import matrix_rows
from benchmarks.products import product_rows
from benchmarks.report import Report, Row
from benchmarks.rig import make_rig
from benchmarks.transforms import transform_rows
from he_runtime.allocation import keep_freed_memory
from he_runtime.parameters import RING_DEGREES, levels_offered

PRIMES = (20, 10, 5)
LARGEST_ALONE = 34  # primes at N=65536: a program of four layers; the ring offers more, with keys of gigabytes


def measure(
    ring_degree: int = 32768,
    primes: tuple[int, ...] = PRIMES,
    repeats: int = 9,
    *,
    every_ring: bool = True,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """`rows` beside SEAL at `ring_degree`; with `every_ring` transforms at all rings, and ours alone at 16384 and 65536."""
    keep_freed_memory()  # as the worker does; SEAL keeps its own
    rows: list[Row] = []
    for degree in RING_DEGREES if every_ring else (ring_degree,):
        on_progress(f"transforms, N={degree}")
        rows += transform_rows(degree, 10 * repeats)
    on_progress(f"keys, N={ring_degree}")
    rig = make_rig(ring_degree, max(primes), with_seal=True)
    for measured in (key_switching_rows, product_rows, matrix_rows, encoding_rows):
        for count in primes:
            on_progress(f"{measured.__name__.removesuffix('_rows').replace('_', ' ')}, {count} primes")
            rows += measured(rig, count - 1, repeats)
    rows += key_rows(rig, repeats)
    del rig
    for degree in (16384, 65536) if every_ring else ():
        most = min(levels_offered(degree) + 1, LARGEST_ALONE)
        on_progress(f"keys, N={degree}")
        alone = make_rig(degree, most, with_seal=False)
        for count in (most, most * 2 // 3, most // 3):
            on_progress(f"ours alone, N={degree}, {count} primes")
            for measured in (key_switching_rows, product_rows, matrix_rows):
                rows += measured(alone, count - 1, repeats)
    return {"rows": rows, "machine": machine()}
