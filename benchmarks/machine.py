"""What a figure was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MATTERING_FLAGS = ("avx2", "fma", "avx512f", "avx512ifma")
MATTERING_PACKAGES = ("numpy", "numba", "tenseal")


def machine() -> dict[str, object]:
    """Processor, its vector extensions that matter here, cores, load, memory in bytes, and versions."""
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
        "flags": [name for name in MATTERING_FLAGS if name in flags.split()],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name) for name in MATTERING_PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
