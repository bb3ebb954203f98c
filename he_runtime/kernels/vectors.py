"""Loops compiled for the processor's whole vectors.

For Intel's processors LLVM takes half of an AVX-512 register unless told otherwise, since the first of them lowered their clock
for whole ones. Here it costs a quarter: transforms of N=32768 took 113 µs forward and 126 back, and take 85 and 93 (Intel Xeon,
Emerald Rapids, one thread, least of 200 beside a training run). Other processors have no such preference, and nothing changes.
"""

import llvmlite.binding as llvm
from numba import config

WHOLE_VECTORS = "-prefer-256-bit"


def compile_for_whole_vectors() -> None:
    """Before the first loop is compiled, in this process; later it does nothing. NUMBA_CPU_FEATURES in the environment wins."""
    features = llvm.get_host_cpu_features()
    if config.CPU_FEATURES is None and features.get("avx512f"):
        config.CPU_FEATURES = f"{features.flatten()},{WHOLE_VECTORS}"
