"""grpc.health.v1: "" says that the process answers, the service's name that it takes queries.

Readiness is: the model is planned, a worker is up, and the disk has room. Anyone may ask; the answer is one word.
"""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from he_runtime.errors import WireError
from services.health_check import SERVICE_NAME
from services.server.handlers import one_request
from services.server.refusals import REASONS

Status = health_pb2.HealthCheckResponse.ServingStatus


class Health(HealthServicer):  # type: ignore[misc]
    """The health service, with bounds on the time that a question takes to arrive and on streams of changes, which last as long
    as a stranger likes.
    """

    def __init__(self, watches: int, seconds: float) -> None:
        super().__init__()
        self._watches_left = watches
        self._seconds = seconds

    async def Check(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """One service's state."""
        return await super().Check(await self._request(requests, context), context)

    async def Watch(self, requests: Any, context: Any) -> None:  # noqa: N802
        """Changes of one service's state."""
        request = await self._request(requests, context)
        if not self._watches_left:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many: use Check, or try again later")
        self._watches_left -= 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches_left += 1

    async def _request(self, requests: Any, context: Any) -> Any:
        try:
            return await one_request(requests, self._seconds)
        except WireError as error:
            await context.abort(REASONS[error.reason], f"{error.reason}: {error}")

    async def say(self, *, alive: bool, ready: bool) -> None:
        """Set both states."""
        for name, good in (("", alive), (SERVICE_NAME, ready)):
            await self.set(name, Status.SERVING if good else Status.NOT_SERVING)
