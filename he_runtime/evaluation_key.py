"""The evaluation key as a value: public, the same at client, on the wire and at the server."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EvaluationKey:
    """A key-switching key for one Galois element (0: relinearisation), usable at every level up to its own.

    digits: for each the seed of its `a` rows and its b rows, uint64 [level+1+special, N], canonical, transformed.
    """

    galois_element: int
    level: int
    digits: tuple[tuple[bytes, NDArray[np.uint64]], ...]
