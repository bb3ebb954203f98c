"""Every replacement with its facts and its measured errors: what `thex approximations` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from approx.activation import Activation, fit_activation
from approx.calibration_values import CalibrationValues, standard_values
from approx.facts import Facts
from approx.measuring import Errors, measure
from approx.norm import AffineNorm, ExactNorm, fit_norm
from approx.pooler import Pooler, fit_pooler
from approx.registry import OPERATIONS, Shape, build, find, names
from approx.replacement import Replacement
from approx.softmax import Softmax, TheXSoftmax, fit_reciprocal, fit_softmax

NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class Entry:
    """One replacement: what it says, and how far it is from exact when fitted to the calibration values."""

    operation: str
    name: str
    facts: Facts
    errors: Errors

    def as_row(self) -> dict[str, Any]:
        """For JSON. domain: [low, high] of `of`, where largest_error was found at `at`; usual_error: see Errors."""
        facts = self.facts
        return {
            "operation": self.operation, "name": self.name, "domain": list(self.errors.domain), "of": facts.of,
            "degree": facts.degree, "depth": facts.depth, "interactive": facts.interactive, "rounds": facts.rounds,
            "encrypted": facts.encrypted, "largest_error": self.errors.largest, "at": self.errors.at,
            "usual_error": self.errors.usual, "derivation": facts.derivation, "source": facts.source,
        }  # fmt: skip


def catalogue(operations: Iterable[str] = OPERATIONS, values: CalibrationValues | None = None) -> list[Entry]:
    """All replacements of these operations, fitted to the values (standard ones if None) and measured; a few seconds.

    ValueError for an unknown operation.
    """
    wanted, values = list(operations), values if values is not None else standard_values()
    for operation in wanted:
        find(operation, "exact")
    entries = []
    for operation, name in names():
        if operation in wanted:
            replaced, exact = (fitted(operation, each, values) for each in (name, "exact"))
            errors = measure(operation, replaced, exact, values)
            entries.append(Entry(operation, name, replaced.facts, errors))
    return entries


def fitted(operation: str, name: str, values: CalibrationValues) -> Replacement:
    """The replacement for one head, or neuron, or as wide as the residuals, fitted to the values; float64, for study."""
    module = build(operation, name, Shape(values.residuals.shape[1], 1, 1, NORM_EPSILON)).eval()
    if isinstance(module, TheXSoftmax):
        fit_reciprocal(module)
    module = module.double()
    if isinstance(module, Softmax):
        tokens = values.scores.shape[1]
        scores = torch.from_numpy(np.ascontiguousarray(values.scores))
        weights = torch.softmax(scores, dim=1) * tokens
        scores = module.argument(scores[None, None], torch.ones(1, tokens, dtype=torch.float64))[0, 0]
        counts = torch.full((scores.numel(),), float(tokens), dtype=torch.float64)
        fit_softmax(module, scores.reshape(1, -1), weights.reshape(1, -1), counts)
    elif isinstance(module, Activation):
        fit_activation(module, torch.from_numpy(values.preactivations)[:, None])
    elif isinstance(module, AffineNorm):
        fit_norm(
            module, ExactNorm(values.residuals.shape[1], NORM_EPSILON).double(), torch.from_numpy(values.residuals)
        )
    elif isinstance(module, Pooler):
        fit_pooler(module, torch.from_numpy(values.pooled)[:, None])
    return module
