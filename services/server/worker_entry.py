"""What the spawned process imports first: it limits itself, then imports the evaluator.

The front imports this and stays free of numpy, numba and the evaluator.
"""

import resource
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told when it starts. Plain values: they cross to another process."""

    bundle_directory: str
    threads: int
    memory_bytes: int
    """Address space; 0 for no limit."""
    open_files: int
    job_cpu_seconds: int
    """Processor time of one job."""
    loaded_key_sets: int
    cache_directory: str | None = None
    insecure_test_ring: int | None = None


def run(pipe: Any, cancelled: Any, settings: WorkerSettings) -> None:
    """Entry point of the new process."""
    limit_this_process(settings)
    from he_runtime.errors import HERuntimeError
    from services.server.worker import main

    try:
        main(pipe, cancelled, settings)
    except HERuntimeError as error:  # of a bundle that cannot be served: one line says it
        sys.exit(f"error: {error}")


def limit_this_process(settings: WorkerSettings) -> None:
    """Bounds for the whole life of the process: memory, files, and no core dump, which would hold clients' keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (settings.open_files, settings.open_files))
    if settings.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (settings.memory_bytes, settings.memory_bytes))


def limit_this_job(settings: WorkerSettings) -> None:
    """The kernel ends the process (SIGXCPU) when one job takes more processor time than it may."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + settings.job_cpu_seconds, hard))
