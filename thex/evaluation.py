"""Predictions, metrics, agreement, and values seen against their ranges."""

from __future__ import annotations

from typing import Any

import torch

from thex.data import Encoded, in_order
from thex.encoder import EXACT, REPLACED, Encoder, Ratios
from thex.recorder import Recorder
from thex.tasks import Task, score


@torch.no_grad()
def predict(model: Encoder, data: Encoded, ratios: Ratios, batch_size: int = 64) -> torch.Tensor:
    """Logits float32 [examples, outputs], in the order of the data, on the CPU."""
    device = next(model.parameters()).device
    logits = torch.zeros(len(data), model.config.labels)
    for batch in in_order(data, batch_size, device):
        logits[batch.indices] = model(batch.ids, batch.mask, batch.types, ratios).cpu()
    return logits


def report(exact: Encoder, replaced: Encoder, dev: Encoded, task: Task, ranges: dict[str, Any]) -> dict[str, Any]:
    """Metric of both models, their agreement in percent, the count, and how many texts leave the embedding or logit range."""
    of_exact, of_replaced = predict(exact, dev, EXACT), predict(replaced, dev, REPLACED)
    labels = dev.labels.numpy()
    main = next(iter(score(task, of_exact.numpy(), labels)))
    agreement = float((of_exact.argmax(dim=1) == of_replaced.argmax(dim=1)).float().mean())
    outside = int((of_replaced.abs() > ranges["logits"]).any(dim=1).sum())
    return {
        "count": len(dev),
        "metric": main,
        "exact": round(score(task, of_exact.numpy(), labels)[main], 2),
        "replaced": round(score(task, of_replaced.numpy(), labels)[main], 2),
        "agreement": round(100 * agreement, 2),
        "out_of_range": outside,
    }


@torch.no_grad()
def largest_values(model: Encoder, data: Encoded, ratios: Ratios) -> dict[tuple[str, int], float]:
    """Largest absolute value at every recorded point, padding included."""
    device = next(model.parameters()).device
    largest: dict[tuple[str, int], float] = {}
    for batch in in_order(data, 64, device):
        recorder = Recorder()
        model(batch.ids, batch.mask, batch.types, ratios, recorder)
        for key, tensor in recorder.tensors.items():
            largest[key] = max(largest.get(key, 0.0), float(tensor.abs().max()))
    return largest
