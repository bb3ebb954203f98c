"""The model card: what a bundle is, how it was made, what it scores, where it ends."""

from __future__ import annotations

import json
from typing import Any

from thex.calibration import LENGTH_MARGIN


def model_card(document: dict[str, Any]) -> str:
    """Markdown from the bundle's config.json."""
    shape, replacements = document["architecture"], document["replacements"]
    dev = document["accuracy"]["dev"]
    config = document["provenance"]["config"]
    recipe = config["recipe"]
    # Of a sentence encoder the directory of all tasks.
    data = "ROOT" if document["task"]["kind"] == "embedding" else document["task"]["name"]
    teacher = config["teacher"]["checkpoint"] if config["teacher"] else "none"
    rows = "\n".join(
        f"| {index + 1} | "
        + " | ".join(f"{layer[point]:.3g}" for point in ("score", "preactivation", "activation", "output"))
        + " |"
        for index, layer in enumerate(document["ranges"]["layers"])
    )
    longest = document["ranges"].get("length")
    length = (
        ""
        if longest is None
        else f", a vector's length {longest:.3g} ({LENGTH_MARGIN} times the exact encoder's longest)"
    )
    return f"""# {document["name"]}

A polynomial BERT-shaped encoder for {document["task"]["name"]}, made to run on encrypted text by THE-X.

{shape["layers"]} layers, hidden {shape["hidden"]}, {shape["heads"]} heads, feed-forward {shape["intermediate"]}, vocabulary {shape["vocabulary"]}.
Replaced: softmax by {replacements["softmax"]}, GELU by {replacements["activation"]} (coefficients per neuron), LayerNorm by
{replacements["norm"]} (mean subtracted, variance constant), the pooler's tanh by {replacements["pooler"]}. The embeddings' LayerNorm is exact, at the client.

## Figures

On all {dev["count"]} dev examples ({dev["metric"]}, after rounding to half precision):

| exact model | replaced model | agreement | answers out of range |
|---|---|---|---|
| {dev["exact"]:.2f} | {dev["replaced"]:.2f} | {dev["agreement"]:.2f} % | {dev["out_of_range"]} |

## Ranges

Largest absolute values allowed: what calibration saw, times {recipe["range_margin"]}. Embedding {document["ranges"]["embedding"]:.3g}, logits
{document["ranges"]["logits"]:.3g}{length}.

| layer | score | preactivation | activation | output |
|---|---|---|---|---|
{rows}

A client refuses an answer that leaves its range. Inputs unlike the task's own give answers that mean little.

## How it was made

`thex train --data {data} --out BUNDLE --encoder {config["encoder"]} --recipe recipe.json --seed {config["seed"]} --teacher {teacher}` with this recipe.json:

```json
{json.dumps(recipe, indent=1)}
```

Teacher and source of a fresh encoder's embeddings: {teacher}. all-MiniLM-L6-v2 is Apache-2.0.
Versions: {json.dumps(document["provenance"].get("versions", {}))}, seed {config["seed"]}, on {document["provenance"].get("device")}.

## Terms

Weights Apache-2.0. The task's texts have terms of their own; none of them is in this directory.
"""
