"""The client: `Client(...).classify("text")`. Imports no torch."""

from services.client.client import Client, Result
from services.client.errors import ClientError, OutOfRangeError, ServerError, TextTooLongError

__all__ = ["Client", "ClientError", "OutOfRangeError", "Result", "ServerError", "TextTooLongError"]
