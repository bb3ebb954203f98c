"""Callers without a token are turned away before a byte of their request is read.

gRPC reads a request whole before its handler runs, and only then can the handler ask who sent it. An interceptor sees a call's
headers first. Certificates of clients are TLS's to verify, which is earlier still.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from he_runtime.errors import WireError
from services.server.calls import Desk
from services.server.handlers import method_names


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Hands calls on whose bearer the desk knows, and all calls where it asks for no token."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._names = method_names()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The method's own handler, or one that refuses without reading."""
        name = self._names.get(details.method)
        if name is None or self._may_enter(details):
            return await continuation(details)

        async def refuse(_unread: Any, context: Any) -> None:
            async with self._desk.call(context, name):
                raise WireError("unauthenticated", "the token was made known a moment too late; try again")

        # As a stream, whichever kind of method it is: gRPC reads a single request without being asked to.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _may_enter(self, details: Any) -> bool:
        if self._desk.authenticator.method != "token":
            return True
        try:
            self._desk.authenticator.principal(tuple(details.invocation_metadata or ()), {})
        except WireError:
            return False
        return True
