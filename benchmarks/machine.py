"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, its vector extensions that matter here, cores and versions."""
    processor, flags = platform.processor(), ""
    with Path("/proc/cpuinfo").open() as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            elif name.strip() == "flags":
                flags = value
                break
    return {
        "processor": processor,
        "vector_extensions": [name for name in ("avx2", "fma", "avx512f", "avx512ifma") if name in flags.split()],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numba", "numpy", "tenseal")},
    }
