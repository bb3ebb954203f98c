"""The gRPC side of the client: channel, finite timeouts, identity, and statuses turned into ServerError."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from services._pb import inference_pb2_grpc as service
from services.addresses import is_loopback
from services.client.errors import ClientError, ServerError, server_error

MESSAGE_BYTES = 32 << 20
_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class Timeouts:
    """Seconds of each phase; all finite."""

    connect: float = 20.0
    call: float = 60.0
    upload: float = 1800.0
    infer: float = 600.0


@dataclass(frozen=True)
class Identity:
    """How the server knows this client; nothing for a server that asks for nothing."""

    token: str | None = field(default=None, repr=False)
    """A bearer token, as `thex tokens add` printed it."""
    certificate: Path | None = None
    private_key: Path | None = None


class Connection:
    """The service's methods over one channel. Every call has a timeout, carries the identity, and raises ServerError."""

    def __init__(
        self,
        target: str,
        *,
        authority: Path | None = None,
        insecure: bool = False,
        identity: Identity = Identity(),
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        self.channel = _open_channel(target, authority, insecure, identity, timeouts)
        self._stub = service.InferenceStub(self.channel)
        self._metadata = () if identity.token is None else (("authorization", f"Bearer {identity.token}"),)
        self._running: set[Any] = set()
        self._cancellations = 0

    def call(self, method: str, request: Any, seconds: float) -> Any:
        """One answer to one request, or to a stream of requests."""
        with server_errors():
            future = getattr(self._stub, method).future(request, timeout=seconds, metadata=self._metadata)
            with self._cancellable(future):
                return future.result()

    def stream(
        self, method: str, request: Any, seconds: float, still_wanted: Callable[[], None] = lambda: None
    ) -> Iterator[Any]:
        """A stream of answers. still_wanted: as `watch` gives it, where the call belongs to work that began before it."""
        with server_errors():
            answers = getattr(self._stub, method)(request, timeout=seconds, metadata=self._metadata)
            with self._cancellable(answers):
                still_wanted()  # once more: from here on `cancel` finds the call
                yield from answers

    @contextlib.contextmanager
    def _cancellable(self, call: Any) -> Iterator[None]:
        self._running.add(call)
        try:
            yield
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED and call in self._running:
                # Not our wish: a server that is killed may reset its streams with this very code.
                raise server_error("unavailable", "the server broke off the call") from None
            raise
        finally:
            self._running.discard(call)
            call.cancel()  # nothing, unless the reader left: then the server stops working for us

    def watch(self) -> Callable[[], None]:
        """What raises as a cancelled call does once `cancel` was called after this: for work between calls."""
        before = self._cancellations

        def still_wanted() -> None:
            if self._cancellations != before:
                raise server_error("cancelled", "the call was cancelled here")

        return still_wanted

    def cancel(self) -> None:
        """End all running calls; they raise UnreachableError with the reason `cancelled`. From any thread."""
        self._cancellations += 1
        for call in list(self._running):
            self._running.discard(call)
            call.cancel()

    def close(self) -> None:
        """End all running calls and close the channel."""
        self.cancel()
        self.channel.close()


def _open_channel(target: str, authority: Path | None, insecure: bool, identity: Identity, timeouts: Timeouts) -> Any:
    """A channel that is connected. Plaintext is for loopback only."""
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.enable_retries", 0),  # services/client/retries.py knows what may be repeated
    ]
    if insecure:
        if not is_loopback(target):
            raise ClientError(
                f"{target} is not a loopback address; --insecure would send queries in the clear: use TLS"
            )
        channel = grpc.insecure_channel(target, options)
    else:
        roots, certificate, private_key = (
            path.read_bytes() if path is not None else None
            for path in (authority, identity.certificate, identity.private_key)
        )
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots, private_key, certificate), options)
    try:
        grpc.channel_ready_future(channel).result(timeout=timeouts.connect)
    except grpc.FutureTimeoutError:
        channel.close()
        raise server_error(
            "unreachable",
            f"no connection to {target} in {timeouts.connect:.0f} s; is it serving, is the certificate its own, "
            "does it want one of yours?",
        ) from None
    return channel


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
    """Turn gRPC failures into ServerError with the server's reason code."""
    try:
        yield
    except grpc.FutureCancelledError:
        raise server_error("cancelled", "the call was cancelled here") from None
    except grpc.RpcError as error:
        raise _from_status(error) from None


def _from_status(error: Any) -> ServerError:
    """The reason from ErrorInfo if the server sent it, else from the text or the status."""
    details = error.details() or ""
    reason, separator, message = details.partition(": ")
    if not separator or " " in reason:
        reason, message = error.code().name.lower(), details
    retry = None
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(ValueError):  # a broken trailer takes nothing away from the status
                for detail in status_pb2.Status.FromString(value).details:
                    waiting = error_details_pb2.RetryInfo()
                    if detail.Unpack(waiting):
                        retry = waiting.retry_delay.ToMilliseconds() / 1000
    return server_error(reason, message, retry)
