"""Least-squares fit of polynomial coefficients on calibration data."""

from __future__ import annotations

import torch


def fit_polynomial(inputs: torch.Tensor, targets: torch.Tensor, degree: int) -> torch.Tensor:
    """Coefficients, highest degree first, minimising Σ(p(inputs) - targets)² along the last axis.

    inputs, targets: [..., samples]; returns [..., degree + 1] in the dtype of inputs; computed in float64.
    Raises ValueError when there are fewer samples than coefficients: the fit would not be determined.
    """
    samples = inputs.shape[-1]
    if samples <= degree:
        raise ValueError(
            f"a fit of degree {degree} needs more than {degree} samples, got {samples}: calibrate on more text"
        )
    points = inputs.double()
    powers = torch.stack([points**exponent for exponent in range(degree, -1, -1)], dim=-1)
    # "gelsd" tolerates rank deficiency (a neuron that is constant on the calibration text); CUDA has only "gels".
    driver = "gelsd" if inputs.device.type == "cpu" else "gels"
    solution = torch.linalg.lstsq(powers, targets.double().unsqueeze(-1), driver=driver).solution
    return solution.squeeze(-1).to(inputs.dtype)
