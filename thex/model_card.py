"""The model card: what a bundle is, how it was made, what it scores, where it ends."""

from __future__ import annotations

import json
from typing import Any


def model_card(document: dict[str, Any]) -> str:
    """Markdown from the bundle's config.json."""
    shape, replacements = document["architecture"], document["replacements"]
    dev = document["accuracy"]["dev"]
    config = document["provenance"].get("config", {})
    rows = "\n".join(
        f"| {index + 1} | "
        + " | ".join(f"{layer[point]:.3g}" for point in ("score", "preactivation", "activation", "output"))
        + " |"
        for index, layer in enumerate(document["ranges"]["layers"])
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

Largest absolute values allowed: what calibration saw, times {config.get("range_margin")}. Embedding {document["ranges"]["embedding"]:.3g}, logits
{document["ranges"]["logits"]:.3g}.

| layer | score | preactivation | activation | output |
|---|---|---|---|---|
{rows}

A client refuses an answer whose logits leave their range. Inputs unlike movie reviews give labels that mean little.

## How it was made

`thex train --data SST-2 --out {document["name"]} --config config.json` with

```json
{json.dumps(config, indent=1)}
```

Teacher and source of the embeddings: all-MiniLM-L6-v2 (Apache-2.0), fine-tuned on the task. Stages: student on labels, distilled student, replacement of one
operation after another with distillation from the exact student and penalties on ranges, hostile inputs among them.
Versions: {json.dumps(document["provenance"].get("versions", {}))}, seed {config.get("seed")}, on {document["provenance"].get("device")}.

## Terms

Weights Apache-2.0. SST-2 is research data (Socher et al. 2013, GLUE); none of it is in this directory.
"""
