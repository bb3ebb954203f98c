"""Predictions of a whole data file."""

from __future__ import annotations

import torch

from thex.data import Encoded, in_order
from thex.encoder import Encoder, Ratios


@torch.no_grad()
def predict(model: Encoder, data: Encoded, ratios: Ratios, batch_size: int = 64) -> torch.Tensor:
    """Logits float32 in the order of the data, on the CPU: [examples, outputs], of a token task [examples, tokens, tags].

    Leaves the model in evaluation mode. Of a token task, tokens is the width of data.labels, and rows of padding are zero.
    """
    model.eval()
    device = next(model.parameters()).device
    shape = (*data.labels.shape, model.config.labels) if data.labels.ndim == 2 else (len(data), model.config.labels)
    logits = torch.zeros(shape)
    for batch in in_order(data, batch_size, device):
        found = model(batch.ids, batch.mask, batch.types, ratios).float().cpu()
        if found.ndim == 3:
            logits[batch.indices, : found.shape[1]] = found
        else:
            logits[batch.indices] = found
    return logits
