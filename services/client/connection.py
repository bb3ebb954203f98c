"""The gRPC side of the client: channel, finite timeouts, and statuses turned into ServerError."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from services._pb import inference_pb2_grpc as service
from services.addresses import is_loopback
from services.client.errors import ClientError, ServerError

MESSAGE_BYTES = 32 << 20


@dataclass(frozen=True)
class Timeouts:
    """Seconds; all finite."""

    connect: float = 20.0
    call: float = 60.0
    upload: float = 1800.0
    infer: float = 600.0


def open_channel(target: str, *, authority: Path | None, insecure: bool, timeouts: Timeouts) -> grpc.Channel:
    """A channel that is connected. Plaintext is for loopback only."""
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    if insecure:
        if not is_loopback(target):
            raise ClientError(
                f"{target} is not a loopback address; --insecure would send queries in the clear: use TLS"
            )
        channel = grpc.insecure_channel(target, options)
    else:
        roots = authority.read_bytes() if authority is not None else None
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
    try:
        grpc.channel_ready_future(channel).result(timeout=timeouts.connect)
    except grpc.FutureTimeoutError:
        channel.close()
        raise ServerError(
            "unreachable",
            f"no connection to {target} in {timeouts.connect:.0f} s; is it serving, is the certificate its own?",
        ) from None
    return channel


def stub(channel: grpc.Channel) -> service.InferenceStub:
    """The service's methods."""
    return service.InferenceStub(channel)


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
    """Turn gRPC failures into ServerError with the server's reason code."""
    try:
        yield
    except grpc.RpcError as error:
        details = error.details() or ""
        reason, separator, message = details.partition(": ")
        if not separator or " " in reason:
            reason, message = error.code().name.lower(), details
        raise ServerError(reason, message) from None
