"""The attention polynomial as folding leaves it: one rule for every lowering, which differ in where heads lie."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from he_runtime.network import Layer
from he_runtime.program import ProgramBuilder, Value

Array = NDArray[np.float64]


def attention_polynomial(
    builder: ProgramBuilder, layer: Layer, score: Value, by_head: Callable[[Array], Array]
) -> Value:
    """(score + β)² + γ, or score + γ where heads are linear (all of a layer are alike). 1 level (linear: 0).

    by_head: the plaintext that holds, wherever the score of a head lies, that head's number of [heads].
    """
    if layer.attention[:, 0].any():
        score = builder.add_plain(score, by_head(layer.score_shift))
        score = builder.multiply([score], [score])
    return builder.add_plain(score, by_head(layer.attention[:, 2]))
