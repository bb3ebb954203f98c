"""The plain polynomial model of a bundle, asked in token ids: what a server of it would answer, without encryption."""

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import Bundle
from he_runtime.errors import RangeError
from he_runtime.plain_model import logits as plain_logits

Array = NDArray[np.float64]


class PlainAnswers:
    """Outputs float64 of one text: [classes], or [features] of a sentence encoder, as they are (of any length)."""

    def __init__(self, bundle: Bundle) -> None:
        self._half, self._weights, self._bound = bundle.client_half, bundle.weights(), bundle.config.ranges.logits

    def embedded(self, ids: list[int], types: list[int]) -> Array:
        """What the client encrypts, [tokens, hidden]. RangeError where it leaves its calibrated range."""
        return self._half.embed(ids, types)

    def outputs(self, ids: list[int], types: list[int]) -> Array:
        """The outputs, in range or not. RangeError where what the client would encrypt is not in range."""
        return plain_logits(self._weights, self.embedded(ids, types))

    def in_range(self, outputs: Array) -> Array:
        """The same outputs. RangeError where one is outside the calibrated range, or not a number: a client refuses them."""
        largest = float(np.abs(outputs).max())
        if not largest <= self._bound:
            raise RangeError(
                f"an output is {largest:.3g}, outside the calibrated range of {self._bound:.3g}: the text is too unlike those "
                "the bundle was calibrated on"
            )
        self._half.expect_vector(outputs)
        return outputs

    def answer(self, ids: list[int], types: list[int]) -> Array:
        """The outputs that a client would show. RangeError where it would refuse."""
        return self.in_range(self.outputs(ids, types))
