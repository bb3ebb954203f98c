"""The losses of the workflow. Each takes tensors and returns a scalar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from thex.config import RangeBounds
from thex.metrics import UNLABELLED
from thex.recorder import Recorder

# The penalty of mean squares is small where few values overflow; this brings it to the size of the other losses.
RANGE_SCALE = 10.0
HIDDEN_POINTS = (("attention_output", 0.5), ("normed", 1.0), ("output", 1.0))
"""What of a layer is compared with the exact student's, and how much it counts."""
LEAST_VARIANCE = 0.01
"""Of the first token's squares: a batch of one text, or of texts alike, varies in nothing."""


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with class indices, or the mean squared error if there is one output. labels float [batch].

    Of a token task logits are [batch, tokens, tags] and labels [batch, at least tokens], UNLABELLED ones left out.
    """
    if logits.ndim == 3:
        indices = labels[:, : logits.shape[1]].long()
        return functional.cross_entropy(logits.flatten(0, 1), indices.flatten(), ignore_index=UNLABELLED)
    if logits.shape[1] == 1:
        return functional.mse_loss(logits[:, 0], labels)
    return functional.cross_entropy(logits, labels.long())


def logit_loss(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL divergence from the target's distribution, or the mean squared error if there is one output.

    Of a token task both are [batch, tokens, tags], and the tokens with mask 1 count; mask [batch, tokens].
    """
    if logits.ndim == 3:
        real = mask > 0
        logits, target = logits[real], target[:, : logits.shape[1]][real]
    if logits.shape[1] == 1:
        return functional.mse_loss(logits, target)
    return functional.kl_div(
        functional.log_softmax(logits, dim=1),
        functional.log_softmax(target, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def embedding_loss(vectors: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Three times the mean of 1 - cosine, and the relative squared error. Both [batch, features].

    The cosine is what an embedding is used for; the error keeps its length, which ranges are calibrated on.
    """
    cosine = functional.cosine_similarity(vectors, target, dim=1)
    error = (vectors - target).square().sum() / target.square().sum()
    return 3.0 * (1 - cosine).mean() + error


def hidden_loss(
    student: Recorder,
    exact: Recorder,
    mask: torch.Tensor,
    layers: int,
    points: Sequence[tuple[str, float]] = HIDDEN_POINTS,
) -> torch.Tensor:
    """Relative squared error of the hidden states after both norms, and half of the attention output's, summed.

    Over real tokens only (mask [batch, tokens]). Relative, so that no layer counts more for being larger. points: what else to
    compare, with its weight.
    """
    rows = mask[:, :, None]
    total = torch.zeros((), device=mask.device)
    for layer in range(layers):
        for point, weight in points:
            target = exact[point, layer]
            error = ((student[point, layer] - target) * rows).square().sum()
            total = total + weight * error / (target * rows).square().sum()
    return total


def first_token_loss(student: Recorder, exact: Recorder, layers: int) -> torch.Tensor:
    """Squared error of the first token's states in the last layer, as a share of their variance over the batch, summed.

    A classifier that pools the first token reads nothing else of that layer, and `hidden_loss` hardly sees it in a long text:
    of RTE's pairs (65 tokens) all rows were 4 % off on average, and this one 42 %.
    """
    total = torch.zeros((), device=student["output", layers - 1].device)
    for point, weight in HIDDEN_POINTS:
        target = exact[point, layers - 1][:, 0]
        error = (student[point, layers - 1][:, 0] - target).square().sum()
        variance = (target - target.mean(dim=0)).square().sum()
        total = total + weight * error / torch.maximum(variance, LEAST_VARIANCE * target.square().sum())
    return total


def range_penalty(recorder: Recorder, bounds: RangeBounds, layers: int) -> torch.Tensor:
    """Mean squared excess over the bounds of scores, preactivations and hidden states (rows of padding too)."""
    total = torch.zeros((), device=recorder["embedding", -1].device)
    for layer in range(layers):
        for point, bound in (
            ("score", bounds.score),
            ("preactivation", bounds.preactivation),
            ("normed", bounds.hidden),
            ("output", bounds.hidden),
        ):
            total = total + functional.relu(recorder[point, layer].abs() - bound).square().mean()
    return RANGE_SCALE * total


def spread_penalty(recorder: Recorder, mask: torch.Tensor, layers: int) -> torch.Tensor:
    """Squared coefficient of variation, over real tokens, of the deviation that a norm divides by, summed over norms.

    Where it is small, dividing by a constant instead, which is what a polynomial norm does, changes little. mask [batch, tokens].
    """
    total = torch.zeros((), device=mask.device)
    real = mask > 0
    for layer in range(layers):
        for point in ("residual", "output_residual"):
            deviation = recorder[point, layer].float().std(dim=-1)[real]
            total = total + deviation.var() / deviation.mean().square()
    return total


def score_penalty(recorder: Recorder, bounds: RangeBounds, layers: int) -> torch.Tensor:
    """Mean squared excess of attention scores over their bound: THE-X's regularisation against overflow."""
    total = torch.zeros((), device=recorder["embedding", -1].device)
    for layer in range(layers):
        total = total + functional.relu(recorder["score", layer].abs() - bounds.score).square().mean()
    return RANGE_SCALE * total
