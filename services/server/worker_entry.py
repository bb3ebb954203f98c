"""What the spawned process imports first; the front imports this and stays free of numpy, numba and the evaluator."""

from typing import Any


def run(pipe: Any, cancelled: Any, bundle_directory: str, threads: int, cache_directory: str | None) -> None:
    """Import the evaluator inside the new process, and work."""
    from services.server.worker import main

    main(pipe, cancelled, bundle_directory, threads, cache_directory)
