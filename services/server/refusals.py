"""What a refusal looks like on the wire: a status, a text that begins with a stable reason, and google.rpc details.

Every reason is in REASONS and explained in docs/errors.md. Anything unforeseen is `internal` and carries a request id only.
"""

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "thex.v1"
DETAILS_KEY = "grpc-status-details-bin"

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

REASONS: dict[str, grpc.StatusCode] = {
    # bytes that are not what they should be
    "malformed": _INVALID,
    "bad_magic": _INVALID,
    "truncated": _INVALID,
    "trailing_bytes": _INVALID,
    "wrong_version": _INVALID,
    "wrong_kind": _INVALID,
    "wrong_parameters": _INVALID,
    "wrong_level": _INVALID,
    "wrong_scale": _INVALID,
    "digest_mismatch": _INVALID,
    "residue_out_of_range": _INVALID,
    "unwanted_key": _INVALID,
    "secret_key_refused": _INVALID,
    "wrong_bucket": _INVALID,
    "wrong_inputs": _INVALID,
    "empty_upload": _INVALID,
    "quarantined": _INVALID,
    "oversize": grpc.StatusCode.OUT_OF_RANGE,
    "wrong_offset": grpc.StatusCode.OUT_OF_RANGE,
    # states that the caller must change first
    "wrong_program": _PRECONDITION,
    "keys_incomplete": _PRECONDITION,
    "unknown_key_set": grpc.StatusCode.NOT_FOUND,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    # not now, or not so much
    "quota_exceeded": _EXHAUSTED,
    "store_full": _EXHAUSTED,
    "disk_full": _EXHAUSTED,
    "too_many": _EXHAUSTED,
    "busy": _EXHAUSTED,
    "idle": grpc.StatusCode.DEADLINE_EXCEEDED,
    "too_slow": grpc.StatusCode.DEADLINE_EXCEEDED,
    "worker_restarted": _UNAVAILABLE,
    "draining": _UNAVAILABLE,
    "internal": grpc.StatusCode.INTERNAL,
}
RETRY_SECONDS = {
    "disk_full": 60.0,
    "store_full": 60.0,
    "too_many": 5.0,
    "busy": 10.0,
    "worker_restarted": 1.0,
    "draining": 2.0,
}
"""Reasons that time may cure, and how long a client had best wait."""


@dataclass(frozen=True)
class Refusal:
    """One refusal, ready to send."""

    reason: str
    message: str
    request_id: str
    retry_seconds: float | None = None

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status of the reason."""
        return REASONS.get(self.reason, _INVALID)

    @property
    def text(self) -> str:
        """The status message."""
        return f"{self.reason}: {self.message}"

    def trailer(self) -> tuple[str, bytes]:
        """The trailing header with ErrorInfo and, where time may cure it, RetryInfo."""
        details = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata={"request_id": self.request_id})
        ]
        seconds = RETRY_SECONDS.get(self.reason) if self.retry_seconds is None else self.retry_seconds
        if self.reason in RETRY_SECONDS and seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(seconds * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        packed = []
        for detail in details:
            box = any_pb2.Any()
            box.Pack(detail)
            packed.append(box)
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=self.text, details=packed)
        return DETAILS_KEY, status.SerializeToString()
