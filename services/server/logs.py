"""Logs: JSON lines where nobody watches, colours on a terminal. Times in UTC."""

import contextlib
import sys
from typing import Any, TextIO

import structlog


class LossyStream:
    """Text for a stream that may go away, as a pipe does with its reader: what cannot be written is dropped.

    A line of log is never a reason to fail a client's call, or not to stop.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or drop."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flush, or drop."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs() -> None:
    """For the server's process."""
    terminal = sys.stdout.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(LossyStream(sys.stdout)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
