"""Every limit of the server in one place; printed when it starts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What strangers may take."""

    message_bytes: int = 32 << 20
    """Largest gRPC message: a query of the largest bucket fits."""
    key_sets: int = 8
    """Clients whose keys are kept; the next one is refused until keys are deleted."""
    queued_requests: int = 8
    """Requests that may wait for the worker."""
    request_seconds: float = 300.0
    """Longest a request may compute."""
    concurrent_calls: int = 64
    """gRPC calls at a time."""
