"""The client: `Client(...).classify("text")`, or `.embed(["text"])`, and `AsyncClient` for asyncio. Imports no torch."""

from services.client.asynchronous import AsyncClient
from services.client.client import Client
from services.client.connection import Identity, Timeouts
from services.client.embedding_cache import EmbeddingCache
from services.client.errors import (
    AnswerError,
    BusyError,
    ClientError,
    KeysUnknownError,
    ModelChangedError,
    NotAuthenticatedError,
    NotBelievedError,
    OtherModelError,
    OutOfRangeError,
    RoomError,
    SelfTestError,
    ServerError,
    TextTooLongError,
    UnreachableError,
)
from services.client.result import Embedding, Match, Result, SharedResult
from services.client.retries import Retries

__all__ = [
    "AnswerError",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientError",
    "Embedding",
    "EmbeddingCache",
    "Identity",
    "KeysUnknownError",
    "Match",
    "ModelChangedError",
    "NotAuthenticatedError",
    "NotBelievedError",
    "OtherModelError",
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
