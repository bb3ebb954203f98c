"""How a service's methods meet gRPC: each is handed the stream that its request comes in, and reads it itself.

gRPC would read the one request of a unary method before the method runs: also of callers that are about to be turned away, and
for as long as it takes, which may be for ever while a call is held. On the wire the two are the same.
Bytes that are no request reach the method as MALFORMED; gRPC would answer them with UNKNOWN and the text of an exception.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf import message, message_factory
from google.protobuf.descriptor import ServiceDescriptor

from he_runtime.errors import WireError


class Malformed:
    """Stands for a request whose bytes were none."""


MALFORMED: Final = Malformed()


def service_handler(service: ServiceDescriptor, servicer: Any) -> Any:
    """The generic handler of all methods of a service; each is called with an iterator of requests and a context."""
    methods = {}
    for method in service.methods:
        read = message_factory.GetMessageClass(method.input_type).FromString
        write = message_factory.GetMessageClass(method.output_type).SerializeToString
        kind = (
            grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
        )
        methods[method.name] = kind(getattr(servicer, method.name), _tolerant(read), write)
    return grpc.method_handlers_generic_handler(service.full_name, methods)


async def next_request(requests: AsyncIterator[Any], seconds: float, advice: str) -> Any:
    """The next request, read.

    Raises:
        StopAsyncIteration: there is none.
        WireError: idle (it did not come within `seconds`), malformed (its bytes are no request).
    """
    try:
        async with asyncio.timeout(seconds):
            request = await anext(requests)
    except TimeoutError:
        raise WireError("idle", f"nothing came whole for {seconds:.0f} s; {advice}") from None
    if isinstance(request, Malformed):
        raise WireError("malformed", "these bytes are no request of this protocol; is the client of another version?")
    return request


async def one_request(requests: AsyncIterator[Any], seconds: float) -> Any:
    """The request of a method that takes one. WireError: idle, malformed (also where there is none)."""
    try:
        return await next_request(aiter(requests), seconds, "try again")
    except StopAsyncIteration:
        raise WireError("malformed", "the call ended without a request") from None


def _tolerant(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def reader(content: bytes) -> Any:
        try:
            return read(content)
        except (message.DecodeError, ValueError):
            return MALFORMED

    return reader
