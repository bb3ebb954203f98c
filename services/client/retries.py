"""When to try again: only what may be repeated, never for ever, never in step with other clients.

Waiting times double and are drawn anew from the whole interval ("full jitter", Brooker 2015), and are never shorter than what the
server asked for by RetryInfo.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.client.errors import BusyError, RoomError, ServerError, UnreachableError

Answer = TypeVar("Answer")
_NEVER = {"cancelled", "too_slow"}  # our own wish; and what took too long once will again


@dataclass(frozen=True)
class Retries:
    """How patient a client is."""

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    patience_seconds: float = 300.0
    """A server that asks for a longer wait than is left of this is not waited for."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    uniform: Callable[[float, float], float] = field(default=random.uniform, repr=False)

    def run(self, call: Callable[[], Answer]) -> Answer:
        """Call until it succeeds or its error is final. `call` must be safe to repeat."""
        waited = 0.0
        for attempt in range(1, self.attempts + 1):
            try:
                return call()
            except ServerError as error:
                wait = self.wait_after(error, attempt)
                if wait is None or attempt == self.attempts or waited + wait > self.patience_seconds:
                    raise
            waited += wait
            self.sleep(wait)
        raise ValueError("a client makes at least one attempt")

    def wait_after(self, error: ServerError, attempt: int) -> float | None:
        """Seconds to wait after this error of this attempt (1, 2, ...); None when it is final."""
        passing = isinstance(error, UnreachableError | BusyError) or (
            isinstance(error, RoomError) and error.retry_seconds is not None
        )
        if not passing or error.reason in _NEVER:
            return None
        drawn = self.uniform(0, min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1)))
        return drawn + (error.retry_seconds or 0.0)
