"""The values on which replacements are fitted and by which their errors are weighed: a model's own, or standard ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from approx.facts import DEVIATION_DOMAIN, POOLED_DOMAIN, PREACTIVATION_DOMAIN, SCORE_DOMAIN
from approx.functions import Array

SAMPLES = 4096
ROWS = 256
TOKENS = 32
HIDDEN = 64
MEAN_BOUND = 0.1


@dataclass(frozen=True)
class CalibrationValues:
    """What reaches the operations of one layer, float64.

    scores [rows, tokens]: of one head, without padding. preactivations [samples]. residuals [rows, hidden]: what reaches a
    norm. pooled [samples]: what reaches tanh. ValueError for empty arrays, other shapes, and values that are not finite.
    """

    scores: Array
    preactivations: Array
    residuals: Array
    pooled: Array

    def __post_init__(self) -> None:
        for name, dimensions in (("scores", 2), ("preactivations", 1), ("residuals", 2), ("pooled", 1)):
            values = getattr(self, name)
            if values.ndim != dimensions or values.size == 0:
                raise ValueError(
                    f"calibration {name} have {dimensions} dimensions and are not empty, got {values.shape}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"calibration {name} hold values that are not finite")

    @property
    def deviation(self) -> float:
        """The calibrated deviation of residual rows, 1/mean(1/σ)."""
        return float(1 / (1 / self.residuals.std(axis=1)).mean())

    @property
    def deviations(self) -> Array:
        """Each residual row's standard deviation over the calibrated one."""
        return np.asarray(self.residuals.std(axis=1) / self.deviation, np.float64)

    @property
    def mean_bound(self) -> float:
        """The largest |mean| of a residual row over the calibrated deviation."""
        return float(np.abs(self.residuals.mean(axis=1)).max() / self.deviation)

    def domain(self, operation: str) -> tuple[float, float]:
        """The range of what reaches the operation: a score, a pre-activation, a row's deviation over the calibrated one, a
        pooled value. ValueError for an unknown operation."""
        of = {
            "softmax": self.scores,
            "activation": self.preactivations,
            "norm": self.deviations,
            "pooler": self.pooled,
        }
        if operation not in of:
            raise ValueError(f"unknown operation {operation!r}: expected one of {', '.join(of)}")
        return float(of[operation].min()), float(of[operation].max())


def standard_values() -> CalibrationValues:
    """Made values that fill the domains that replacements state, for want of a model's; the same on every machine.

    Normal values cut off at the domain's ends: scores and pooled values of deviation 1, pre-activations of 1.5. Residual rows
    with deviations over their domain and means of ±MEAN_BOUND.
    """
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((ROWS, HIDDEN))
    directions -= directions.mean(axis=1, keepdims=True)
    directions /= directions.std(axis=1, keepdims=True)
    # Square roots evenly over [a, b] have 1/ab for the mean of 1/σ, here 1: the calibrated deviation is 1.
    low, high = np.sqrt(DEVIATION_DOMAIN)
    deviations = np.linspace(low, high, ROWS) ** 2
    means = np.resize([MEAN_BOUND, -MEAN_BOUND], ROWS)
    return CalibrationValues(
        scores=generator.permutation(_normal(1.0, SCORE_DOMAIN, ROWS * TOKENS)).reshape(ROWS, TOKENS),
        preactivations=_normal(1.5, PREACTIVATION_DOMAIN, SAMPLES),
        residuals=directions * deviations[:, None] + means[:, None],
        pooled=_normal(1.0, POOLED_DOMAIN, SAMPLES),
    )


def _normal(deviation: float, domain: tuple[float, float], samples: int) -> Array:
    """Quantiles of the normal distribution cut off at the domain's ends, both included, rising."""
    low, high = (ndtr(end / deviation) for end in domain)
    values = deviation * ndtri(np.linspace(low, high, samples))
    values[0], values[-1] = domain
    return np.asarray(values, np.float64)
