"""Calibration: replacements fitted to what the exact model computes, and ranges measured on what the replaced one computes."""

from __future__ import annotations

import random

import torch

from approx.activation import QuadraticActivation, fit_activation
from approx.norm import AffineNorm, ExactNorm, fit_norm
from approx.softmax import LinearSoftmax, QuadraticSoftmax, fit_softmax
from thex.config import TrainingConfig
from thex.data import Encoded, in_order
from thex.encoder import EXACT, REPLACED, Encoder, Layer
from thex.hostile import hostile_texts
from thex.recorder import Recorder

FIT_TEXTS = 768
FIT_SAMPLES = 100_000
FIT_ROWS = 6_000
HOSTILE_TEXTS = 64

LAYER_POINTS = (
    *("query", "key", "value", "score", "attention", "context"),
    *("residual", "preactivation", "activation", "output"),
)


@torch.no_grad()
def calibrate(model: Encoder, data: Encoded, config: TrainingConfig) -> None:
    """Fit every replacement by least squares on the exact model's own values (FIT_TEXTS texts)."""
    model.eval()
    chosen = random.Random(config.seed).sample(range(len(data)), min(FIT_TEXTS, len(data)))
    device = next(model.parameters()).device
    seen: dict[tuple[str, int], list[torch.Tensor]] = {}
    for batch in in_order(data.subset(chosen), 64, device):
        recorder = Recorder()
        model(batch.ids, batch.mask, batch.types, EXACT, recorder)
        real = batch.mask > 0
        pairs = real[:, :, None] & real[:, None, :]
        for number in range(config.layers):
            for point in ("residual", "output_residual", "preactivation"):
                seen.setdefault((point, number), []).append(recorder[point, number][real])
            counts = batch.mask.sum(dim=1)[:, None, None, None]
            for point, tensor in (
                ("score", recorder["score", number]),
                ("attention", recorder["attention", number] * counts),
            ):
                per_head = tensor.transpose(0, 1)[:, pairs]
                seen.setdefault((point, number), []).append(per_head)
    generator = torch.Generator().manual_seed(config.seed)
    for index, layer in enumerate(model.layers):
        if isinstance(layer, Layer):
            _fit_layer(
                layer,
                {
                    point: torch.cat(values, dim=-1 if point in ("score", "attention") else 0)
                    for (point, where), values in seen.items()
                    if where == index
                },
                generator,
            )
    model.train()


def _fit_layer(layer: Layer, seen: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    for norm, point in ((layer.attention_norm, "residual"), (layer.output_norm, "output_residual")):
        if isinstance(norm.replaced, AffineNorm) and isinstance(norm.exact, ExactNorm):
            fit_norm(norm.replaced, norm.exact, seen[point])
    softmax = layer.softmax.replaced
    if isinstance(softmax, QuadraticSoftmax | LinearSoftmax):
        picked = torch.randperm(seen["score"].shape[1], generator=generator)[:FIT_SAMPLES]
        fit_softmax(softmax, seen["score"][:, picked], seen["attention"][:, picked])
    if isinstance(layer.activation.replaced, QuadraticActivation):
        picked = torch.randperm(len(seen["preactivation"]), generator=generator)[:FIT_ROWS]
        fit_activation(layer.activation.replaced, seen["preactivation"][picked])


@torch.no_grad()
def measure_ranges(model: Encoder, data: Encoded, config: TrainingConfig) -> dict[str, object]:
    """Largest absolute values of the replaced model, times the margin: the bundle's `ranges`.

    Over `calibration_sentences` texts and HOSTILE_TEXTS odd ones (long, one token repeated, random ids, nearly empty);
    padding rows are left out, as an encrypted query zeroes or ignores them.
    """
    model.eval()
    device = next(model.parameters()).device
    generator = random.Random(config.seed)
    chosen = generator.sample(range(len(data)), min(config.calibration_sentences, len(data)))
    largest: dict[tuple[str, int], float] = {}
    odd = hostile_texts(data, HOSTILE_TEXTS, model.config.vocabulary, config.positions, generator)
    for texts in (data.subset(chosen), odd):
        for batch in in_order(texts, 64, device):
            recorder = Recorder()
            model(batch.ids, batch.mask, batch.types, REPLACED, recorder)
            real = batch.mask > 0
            pairs = (real[:, :, None] & real[:, None, :])[:, None]
            for (point, layer), tensor in recorder.tensors.items():
                if point in ("score", "attention"):
                    value = (tensor * pairs).abs().max()
                elif tensor.ndim == 3:
                    value = tensor[real].abs().max()
                else:
                    value = tensor.abs().max()
                key = (point, layer)
                largest[key] = max(largest.get(key, 0.0), float(value))
    margin = config.range_margin
    layers = [
        {point: round(margin * largest[point, layer], 4) for point in LAYER_POINTS} for layer in range(config.layers)
    ]
    return {
        "embedding": round(margin * largest["embedding", -1], 4),
        "logits": round(margin * largest["logits", -1], 4),
        "layers": layers,
    }
