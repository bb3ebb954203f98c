"""What can go wrong at the client, as one tree.

ClientError
├── ServerError                the server refused; `reason` is a stable code (docs/errors.md), `retry_seconds` when to try again
│   ├── UnreachableError       no connection, or it broke, or no answer came in time
│   ├── BusyError              too much to do just now: try again later
│   ├── RoomError              no room for keys there: a quota, a full store, a full disk
│   ├── NotAuthenticatedError  the server does not know this client
│   ├── KeysUnknownError       the server has no keys of that name: upload them again
│   └── ModelChangedError      the server serves another model or program now: connect again
├── TextTooLongError           more tokens than the model's largest bucket
├── OutOfRangeError            the text, or the answer, is outside what the model was calibrated for: no label
└── AnswerError                what came back is not an answer to what was asked
    ├── NotBelievedError       it holds numbers where an honest answer has none: values wrapped around, or it was made up
    ├── SelfTestError          the server computes wrongly with these keys: one was damaged, or is another's
    └── OtherModelError        the server serves another model than the one that this client asks for alone
"""


class ClientError(Exception):
    """Base of all errors that a client raises."""


class ServerError(ClientError):
    """The server refused."""

    def __init__(self, reason: str, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.retry_seconds = retry_seconds
        """Seconds after which the server says that a retry makes sense; None where it does not."""


class UnreachableError(ServerError):
    """No connection, or it broke, or no answer came in time."""


class BusyError(ServerError):
    """The server has too much to do just now."""


class RoomError(ServerError):
    """The server has no room for these keys."""


class NotAuthenticatedError(ServerError):
    """The server does not know this client."""


class KeysUnknownError(ServerError):
    """The server has no keys of that name."""


class ModelChangedError(ServerError):
    """The server serves another model or program than when this client connected."""


class TextTooLongError(ClientError):
    """More tokens than the model's largest bucket."""


class OutOfRangeError(ClientError):
    """Outside what the model was calibrated for, so no label is given."""


class AnswerError(ClientError):
    """What came back is not an answer to what was asked."""


class NotBelievedError(AnswerError):
    """The answer holds numbers where an honest one has none."""


class SelfTestError(AnswerError):
    """The server computes wrongly with these keys."""


class OtherModelError(AnswerError):
    """The server serves another model than the one that this client asks for alone."""


OF_REASON: dict[str, type[ServerError]] = {
    "unreachable": UnreachableError,
    "unavailable": UnreachableError,
    "deadline_exceeded": UnreachableError,
    "cancelled": UnreachableError,
    "worker_restarted": BusyError,
    "draining": BusyError,
    "busy": BusyError,
    "too_many": BusyError,
    "too_slow": BusyError,
    "idle": UnreachableError,
    "quota_exceeded": RoomError,
    "store_full": RoomError,
    "disk_full": RoomError,
    "unauthenticated": NotAuthenticatedError,
    "unknown_key_set": KeysUnknownError,
    "keys_incomplete": KeysUnknownError,
    "wrong_program": ModelChangedError,
}


def server_error(reason: str, message: str, retry_seconds: float | None = None) -> ServerError:
    """The error of the tree that this reason stands for."""
    return OF_REASON.get(reason, ServerError)(reason, message, retry_seconds)
