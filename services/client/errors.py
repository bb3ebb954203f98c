"""What can go wrong at the client, as one tree.

ClientError
├── ServerError         the server refused or could not be reached; `reason` is a stable code
├── TextTooLongError    more tokens than the model's largest bucket
├── OutOfRangeError     the text, or the answer, is outside what the model was calibrated for: no label
└── AnswerError         what came back is not an answer to what was asked
"""


class ClientError(Exception):
    """Base of all errors that a client raises."""


class ServerError(ClientError):
    """The server refused, or could not be reached."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class TextTooLongError(ClientError):
    """More tokens than the model's largest bucket."""


class OutOfRangeError(ClientError):
    """Outside what the model was calibrated for, so no label is given."""


class AnswerError(ClientError):
    """What came back is not an answer to what was asked."""
