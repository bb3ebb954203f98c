"""The client: `Client(...).classify("text")`, and `AsyncClient` for asyncio. Imports no torch."""

from services.client.asynchronous import AsyncClient
from services.client.client import Client
from services.client.connection import Identity, Timeouts
from services.client.errors import (
    AnswerError,
    BusyError,
    ClientError,
    KeysUnknownError,
    ModelChangedError,
    NotAuthenticatedError,
    OutOfRangeError,
    RoomError,
    SelfTestError,
    ServerError,
    TextTooLongError,
    UnreachableError,
)
from services.client.result import Result, SharedResult
from services.client.retries import Retries

__all__ = [
    "AnswerError",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "Identity",
    "KeysUnknownError",
    "ModelChangedError",
    "NotAuthenticatedError",
    "OutOfRangeError",
    "Result",
    "Retries",
    "RoomError",
    "SelfTestError",
    "ServerError",
    "SharedResult",
    "TextTooLongError",
    "Timeouts",
    "UnreachableError",
]
