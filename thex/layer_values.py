"""What reaches the operations of one layer of an exact encoder on a task's texts: for fitting and plotting replacements."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from approx.calibration_values import CalibrationValues
from approx.functions import Array
from thex.checkpoints import load_checkpoint, locate
from thex.data import encode, in_order, load_tokenizer
from thex.encoder import EXACT
from thex.recorder import Recorder
from thex.tasks import read_split, task_of

POSITIONS = 128
BATCH = 32
FEWEST_TOKENS = 8
MOST_VALUES = 200_000
MOST_ROWS = 4_000


@torch.no_grad()
def layer_values(encoder: str, data: Path, layer: int, head: int, texts: int) -> CalibrationValues:
    """Values of the first so many training texts, padding left out, at most MOST_VALUES or MOST_ROWS of a kind, float64.

    scores: rows of the most frequent length among texts of at least FEWEST_TOKENS, since rows of one array have one length.
    pooled: the first token's last state through the pooler's matrix, whatever the layer (a checkpoint without that matrix
    gets a random one, as for fine-tuning).
    ValueError for a layer or head that the encoder lacks, data of no task, and texts that are all shorter than 8 tokens.
    """
    model = load_checkpoint(encoder, pooling="first", positions=POSITIONS)
    shape = model.config
    if layer >= shape.layers or head >= shape.heads:
        raise ValueError(
            f"{encoder} has layers 0 to {shape.layers - 1} and heads 0 to {shape.heads - 1}, got layer {layer}, head {head}"
        )
    examples = read_split(task_of(data), data, "train")[:texts]
    encoded = encode(load_tokenizer(locate(encoder) / "tokenizer.json", POSITIONS), examples)
    lengths = Counter(len(ids) for ids in encoded.ids if len(ids) >= FEWEST_TOKENS)
    if not lengths:
        raise ValueError(f"the first {texts} texts of {data} are all shorter than {FEWEST_TOKENS} tokens")
    (length, _), *_ = lengths.most_common(1)
    seen: dict[str, list[torch.Tensor]] = {"score": [], "preactivation": [], "residual": [], "pooled": []}
    for batch in in_order(encoded, BATCH, torch.device("cpu")):
        recorder = Recorder()
        model(batch.ids, batch.mask, batch.types, EXACT, recorder)
        real = batch.mask > 0
        for point in ("preactivation", "residual"):
            seen[point].append(recorder[point, layer][real])
        whole = batch.mask.sum(dim=1) == length
        if whole.any():
            seen["score"].append(recorder["score", layer][whole, head, :length, :length].flatten(0, 1))
        if model.pooler is not None:
            seen["pooled"].append(model.pooler(recorder["output", shape.layers - 1][:, 0]))
    joined = {point: torch.cat(values).double().numpy() for point, values in seen.items()}
    return CalibrationValues(
        joined["score"][:MOST_ROWS],
        _thinned(joined["preactivation"].reshape(-1)),
        joined["residual"][:MOST_ROWS],
        _thinned(joined["pooled"].reshape(-1)),
    )


def _thinned(values: Array) -> Array:
    return values[:: -(-len(values) // MOST_VALUES)]
