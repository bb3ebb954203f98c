"""Calibration: replacements fitted to what the exact model computes, and ranges measured on what the replaced one computes."""

from __future__ import annotations

import random
from typing import Any

import torch

from approx.activation import Activation, fit_activation
from approx.norm import AffineNorm, ExactNorm, fit_norm
from approx.pooler import Pooler, fit_pooler
from approx.softmax import Softmax, fit_softmax
from thex.data import Encoded, in_order
from thex.encoder import EXACT, REPLACED, Encoder, Layer, Ratios
from thex.hostile import hostile_texts
from thex.recorder import Recorder

FIT_TEXTS = 768
FIT_SAMPLES = 100_000
FIT_ROWS = 6_000
HOSTILE_TEXTS = 1_024
HELD = 4.0
"""A hostile input whose outputs go further than this times those of sentences diverges, and has no part in the ranges."""
LENGTH_MARGIN = 1.25
"""A length is of hundreds of outputs, and varies less than the largest of them (docs/training.md, "Sentence encoders")."""
LARGEST = torch.finfo(torch.float32).max

LAYER_POINTS = (
    *("query", "key", "value", "score", "attention", "context"),
    *("residual", "preactivation", "activation", "output"),
)


@torch.no_grad()
def calibrate(model: Encoder, data: Encoded, seed: int) -> None:
    """Fit every replacement to the exact operations' values on FIT_TEXTS texts, each in its own way (see its facts)."""
    model.eval()
    chosen = random.Random(seed).sample(range(len(data)), min(FIT_TEXTS, len(data)))
    device = next(model.parameters()).device
    seen: dict[tuple[str, int], list[torch.Tensor]] = {}
    pooled: list[torch.Tensor] = []
    for batch in in_order(data.subset(chosen), 64, device):
        recorder = Recorder()
        model(batch.ids, batch.mask, batch.types, EXACT, recorder)
        real = batch.mask > 0
        pairs = real[:, :, None] & real[:, None, :]
        for number in range(model.config.layers):
            for point in ("residual", "output_residual", "preactivation"):
                seen.setdefault((point, number), []).append(recorder[point, number][real])
            counts = batch.mask.sum(dim=1)[:, None, None, None]
            seen.setdefault(("count", number), []).append(counts[:, 0].expand_as(pairs)[pairs])
            layer = model.layers[number]
            scores = recorder["score", number]
            if isinstance(layer, Layer) and isinstance(layer.softmax.replaced, Softmax):
                scores = layer.softmax.replaced.argument(scores, batch.mask)
            for point, tensor in (
                ("score", scores),
                ("attention", recorder["attention", number] * counts),
            ):
                per_head = tensor.transpose(0, 1)[:, pairs]
                seen.setdefault((point, number), []).append(per_head)
        if model.pooler is not None:
            pooled.append(model.pooler(recorder["output", model.config.layers - 1][:, 0]))
    if model.pooler_function is not None and isinstance(model.pooler_function.replaced, Pooler):
        fit_pooler(model.pooler_function.replaced, torch.cat(pooled))
    generator = torch.Generator().manual_seed(seed)
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
    if isinstance(softmax, Softmax):
        picked = torch.randperm(seen["score"].shape[1], generator=generator)[:FIT_SAMPLES]
        fit_softmax(softmax, seen["score"][:, picked], seen["attention"][:, picked], seen["count"][picked])
    if isinstance(layer.activation.replaced, Activation):
        picked = torch.randperm(len(seen["preactivation"]), generator=generator)[:FIT_ROWS]
        fit_activation(layer.activation.replaced, seen["preactivation"][picked])


class OverflowedError(ValueError):
    """A value of the replaced model is not finite on sentences of the task, so it has no range."""


@torch.no_grad()
def measure_ranges(
    model: Encoder, data: Encoded, sentences: int, margin: float, seed: int, exact: Encoder | None = None
) -> dict[str, Any]:
    """Largest absolute values of the replaced model, times the margin: the bundle's `ranges`.

    Over that many sentences, and those of HOSTILE_TEXTS odd ones (long, one token repeated, random ids, nearly empty) whose
    outputs stay within HELD times what sentences reach. The others diverge: a range that held them would be no bound, and
    they are what a client is to refuse. Rows of padding are left out, as an encrypted query zeroes or ignores them.
    OverflowedError names the first point that is not finite on a sentence.

    exact: of a sentence encoder, whose vectors a last norm keeps short: one longer than LENGTH_MARGIN times the exact encoder's
    longest is no answer, even where no single output of it is large.
    """
    generator = random.Random(seed)
    chosen = generator.sample(range(len(data)), min(sentences, len(data)))
    odd = hostile_texts(data, HOSTILE_TEXTS, model.config.vocabulary, model.config.positions, generator)
    of_sentences, of_odd = (largest_by_text(model, texts, REPLACED) for texts in (data.subset(chosen), odd))
    for (point, layer), values in of_sentences.items():
        if not values.isfinite().all():
            raise OverflowedError(f"{point} of layer {layer} overflows on {int((~values.isfinite()).sum())} texts")
    held = of_odd["logits", -1] <= HELD * of_sentences["logits", -1].max()
    largest = {key: max([float(values.max()), *of_odd[key][held].tolist()]) for key, values in of_sentences.items()}
    longest = 0.0
    if exact is not None:
        longest = max(
            float(largest_by_text(exact, texts, EXACT)["length", -1].max()) for texts in (data.subset(chosen), odd)
        )
    layers = [
        {point: round(margin * largest[point, layer], 4) for point in LAYER_POINTS}
        for layer in range(model.config.layers)
    ]
    return {
        "embedding": round(margin * largest["embedding", -1], 4),
        "logits": round(margin * largest["logits", -1], 4),
        **({} if exact is None else {"length": round(LENGTH_MARGIN * longest, 4)}),
        "layers": layers,
    }


@torch.no_grad()
def largest_by_text(model: Encoder, data: Encoded, ratios: Ratios) -> dict[tuple[str, int], torch.Tensor]:
    """Largest absolute value of each text at every point of the recorder, float32 [texts], padding left out.

    At the point "length", layer -1, the Euclidean length of its outputs.
    """
    model.eval()
    device = next(model.parameters()).device
    largest: dict[tuple[str, int], torch.Tensor] = {}
    for batch in in_order(data, 64, device):
        recorder = Recorder()
        model(batch.ids, batch.mask, batch.types, ratios, recorder)
        real = batch.mask > 0
        pairs = (real[:, :, None] & real[:, None, :])[:, None]
        for key, tensor in recorder.tensors.items():
            counted = tensor.abs()
            if tensor.ndim == 4:
                counted = counted.masked_fill(~pairs, 0)
            elif tensor.ndim == 3:
                counted = counted.masked_fill(~real[:, :, None], 0)
            largest.setdefault(key, torch.zeros(len(data)))[batch.indices] = (
                counted.flatten(1).amax(dim=1).float().cpu()
            )
        length = recorder["logits", -1].flatten(1).double().norm(dim=1)
        largest.setdefault(("length", -1), torch.zeros(len(data)))[batch.indices] = length.float().cpu()
    return largest


def compare_with_ranges(model: Encoder, data: Encoded, ranges: dict[str, Any]) -> dict[str, Any]:
    """How the replaced model's values on data compare with the calibrated ranges.

    texts: how many texts; outside: how many have a value beyond its range, or one that is not finite, at any point of
    the bundle's ranges; used: the largest share of its range that each point reaches, over layers (1 is its end;
    what is no number, or infinite, counts as LARGEST).
    """
    seen = largest_by_text(model, data, REPLACED)
    outside = torch.zeros(len(data), dtype=torch.bool)
    used: dict[str, float] = {}
    bounds = [("embedding", -1, ranges["embedding"]), ("logits", -1, ranges["logits"])]
    bounds += [("length", -1, ranges["length"])] if "length" in ranges else []
    bounds += [(point, layer, value) for layer, of in enumerate(ranges["layers"]) for point, value in of.items()]
    for point, layer, bound in bounds:
        values = seen[point, layer]
        outside |= ~(values <= bound)  # also what is not a number
        share = float(torch.nan_to_num(values, nan=LARGEST).max()) / bound
        used[point] = round(max(used.get(point, 0.0), share), 3)
    return {"texts": len(data), "outside": int(outside.sum()), "used": used}
