"""How far a replacement is from its exact operation: the largest error on its domain, the usual one, and the curve between.

An error of activation and pooler is |f(x) - exact(x)|; of softmax |P - softmax| of one weight; of a norm the root mean
square over the row's features, with γ = 1 and β = 0, where the exact output has root mean square 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from approx.calibration_values import CalibrationValues
from approx.exponential_softmax import ExponentialSoftmax
from approx.functions import Array
from approx.polynomial_fits import chebyshev_grid
from approx.replacement import Replacement

POINTS = 4001
CURVE_POINTS = 401
OWN_SCORES = 65
OTHER_SCORES = 17


@dataclass(frozen=True)
class Errors:
    """largest: over domain, at `at`; usual: root mean square over the calibration values. domain: their range (a score, a
    pre-activation, a row's deviation over the calibrated one, a pooled value)."""

    domain: tuple[float, float]
    largest: float
    at: float
    usual: float


@dataclass(frozen=True)
class Curve:
    """Exact and replaced function of one variable over the domain, and the calibration values of that variable."""

    of: str
    value: str
    x: Array
    exact: Array
    replaced: Array
    samples: Array


@torch.no_grad()
def measure(operation: str, replaced: Replacement, exact: Replacement, values: CalibrationValues) -> Errors:
    """The errors of a fitted module with one head or neuron, in float64 on the CPU. ValueError for an unknown operation."""
    domain = values.domain(operation)
    at, error, usual = _OF_OPERATION[operation](replaced, exact, values, domain)
    top = int(error.argmax())
    return Errors(domain, float(error[top]), float(at[top]), float(np.sqrt((usual**2).mean())))


@torch.no_grad()
def curve(operation: str, replaced: Replacement, exact: Replacement, values: CalibrationValues) -> Curve:
    """For plots. Softmax: n·P of one key by its score, the other keys having a calibration row's. Norm: the output's root mean
    square by the row's deviation."""
    x = np.linspace(*values.domain(operation), CURVE_POINTS)
    if operation == "softmax":
        rows = np.concatenate(
            [x[:, None], np.broadcast_to(values.scores[0, 1:], (len(x), values.scores.shape[1] - 1))], 1
        )
        before, after = (_weights(module, rows)[:, 0] * rows.shape[1] for module in (exact, replaced))
        return Curve("score", "n·P", x, before, after, values.scores.reshape(-1))
    if operation == "norm":
        rows = _unit_row(values) * x[:, None] * values.deviation
        before, after = (np.sqrt((_apply(module, rows) ** 2).mean(axis=1)) for module in (exact, replaced))
        return Curve("deviation / calibrated", "output, root mean square", x, before, after, values.deviations)
    samples = values.preactivations if operation == "activation" else values.pooled
    return Curve(replaced.facts.of, "value", x, _on_column(exact, x), _on_column(replaced, x), samples)


def rows_of_two_values(domain: tuple[float, float], tokens: int) -> Iterator[Array]:
    """Rows [many, tokens] whose first score is any of the domain and whose others take at most two values.

    A weight depends on its own score and on sums over the others of functions of them (exp, and the replacement's). Their
    extreme pairs of sums lie on the boundary of a sum of plane curves: all others equal, or at two values.
    """
    own = np.linspace(*domain, OWN_SCORES)
    grid = np.linspace(*domain, OTHER_SCORES)
    for first in grid:
        for second in grid[grid >= first]:
            ends = first == domain[0] and second == domain[1]
            counts = range(tokens) if ends else sorted({0, min(1, tokens - 1), tokens // 2})
            for count in counts:
                others = np.repeat([first, second], [count, tokens - 1 - count])
                yield np.concatenate([own[:, None], np.broadcast_to(others, (len(own), tokens - 1))], axis=1)


Interval = tuple[float, float]
Parts = tuple[Array, Array, Array]  # where, the error there, and the errors on the calibration values


def _softmax_errors(replaced: Replacement, exact: Replacement, values: CalibrationValues, domain: Interval) -> Parts:
    rows = np.concatenate(list(rows_of_two_values(domain, values.scores.shape[1])))
    if isinstance(replaced, ExponentialSoftmax):
        means = replaced.means(*_as_attention(rows))[0, 0, :, 0].numpy()
        low, high = replaced.interval[0].tolist()
        rows = rows[(means >= low) & (means <= high)]
    error = np.abs(_weights(replaced, rows)[:, 0] - _weights(exact, rows)[:, 0])
    usual = np.abs(_weights(replaced, values.scores) - _weights(exact, values.scores))
    return rows[:, 0], error, usual


def _activation_errors(replaced: Replacement, exact: Replacement, values: CalibrationValues, domain: Interval) -> Parts:
    return _column_errors(replaced, exact, values.preactivations, domain)


def _pooler_errors(replaced: Replacement, exact: Replacement, values: CalibrationValues, domain: Interval) -> Parts:
    return _column_errors(replaced, exact, values.pooled, domain)


def _column_errors(replaced: Replacement, exact: Replacement, samples: Array, domain: Interval) -> Parts:
    x = chebyshev_grid(domain, POINTS)
    error, usual = (np.abs(_on_column(replaced, at) - _on_column(exact, at)) for at in (x, samples))
    return x, error, usual


def _norm_errors(replaced: Replacement, exact: Replacement, values: CalibrationValues, domain: Interval) -> Parts:
    ratios = np.repeat(np.linspace(*domain, POINTS), 3)
    means = np.tile([-values.mean_bound, 0.0, values.mean_bound], POINTS)
    rows = (_unit_row(values) * ratios[:, None] + means[:, None]) * values.deviation
    error, usual = (
        np.sqrt(((_apply(replaced, each) - _apply(exact, each)) ** 2).mean(axis=1)) for each in (rows, values.residuals)
    )
    return ratios, error, usual


_OF_OPERATION: dict[str, Callable[[Replacement, Replacement, CalibrationValues, Interval], Parts]] = {
    "softmax": _softmax_errors,
    "activation": _activation_errors,
    "norm": _norm_errors,
    "pooler": _pooler_errors,
}


def _apply(module: Replacement, inputs: Array) -> Array:
    return np.asarray(module(torch.from_numpy(np.ascontiguousarray(inputs))).numpy(), np.float64)


def _on_column(module: Replacement, x: Array) -> Array:
    return _apply(module, x[:, None])[:, 0]


def _as_attention(rows: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [many, tokens] as scores [1, 1, many, tokens] of one head, and a mask of ones."""
    return torch.from_numpy(rows)[None, None], torch.ones(1, rows.shape[1], dtype=torch.float64)


def _weights(module: Replacement, rows: Array) -> Array:
    return np.asarray(module(*_as_attention(rows))[0, 0].numpy(), np.float64)


def _unit_row(values: CalibrationValues) -> Array:
    row = values.residuals[0] - values.residuals[0].mean()
    return np.asarray(row / row.std(), np.float64)
