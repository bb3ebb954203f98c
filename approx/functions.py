"""The functions of one variable that polynomials stand for, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def gelu(x: Array) -> Array:
    """x·Φ(x), Φ the normal distribution function (Hendrycks and Gimpel 2016)."""
    return np.asarray(x * ndtr(x), np.float64)


def tanh(x: Array) -> Array:
    """tanh(x)."""
    return np.tanh(x)
