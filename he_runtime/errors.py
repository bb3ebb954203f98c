"""Every error of this package, as one tree.

HERuntimeError
├── BundleError            a bundle is missing a part, damaged, or of an unknown format
├── ParameterError         parameters outside the security table, or too small for a program
├── PlanError              a program that cannot be executed as written (levels, scales, slots)
├── RangeError             a value left its calibrated range
├── WireError              bytes that are not what their sender says they are
└── KeyMissingError        an evaluation key that a program needs was not loaded
"""


class HERuntimeError(Exception):
    """Base of all errors raised by he_runtime: one clear line each."""


class BundleError(HERuntimeError):
    """A bundle is missing a part, damaged, or of an unknown format."""


class ParameterError(HERuntimeError):
    """Encryption parameters outside the security table, or too small for a program."""


class PlanError(HERuntimeError):
    """A program that cannot be executed as written: levels, scales or slots do not fit."""


class RangeError(HERuntimeError):
    """A value left its calibrated range, so an answer computed from it would be meaningless."""


class WireError(HERuntimeError):
    """Bytes that are not what their sender says they are. `reason` is a stable code for clients and logs."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class KeyMissingError(HERuntimeError):
    """An evaluation key that a program needs was not loaded."""
