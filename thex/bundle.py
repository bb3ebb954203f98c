"""Writing a bundle: the directory in which a trained model leaves for the encrypted runtime (format version 1)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from approx.activation import QuadraticActivation
from approx.norm import CentredAffineNorm
from approx.softmax import LinearSoftmax, QuadraticSoftmax
from thex.bundle_directory import FORMAT_VERSION, written_bundle
from thex.encoder import Encoder, Layer
from thex.model_card import model_card
from thex.tasks import Task

ENCRYPTED_SOFTMAX = ("quadratic", "quadratic_centred", "linear")


def write_bundle(
    directory: Path,
    model: Encoder,
    task: Task,
    name: str,
    buckets: tuple[int, ...],
    ranges: dict[str, Any],
    accuracy: dict[str, Any],
    provenance: dict[str, Any],
    tokenizer: Path,
) -> None:
    """Write all files and their digests. Replaces a bundle of the same path, and nothing else.

    Raises ValueError when the model has a part that the encrypted runtime does not evaluate, or what is there is no bundle.
    """
    refusal = exportable(model, task)
    if refusal is not None:
        raise ValueError(refusal)
    shape = model.config
    document = {
        "format": "thex-bundle",
        "format_version": FORMAT_VERSION,
        "name": name,
        "task": {"name": task.name, "kind": task.kind, "labels": list(task.labels), "pair": task.pair},
        "architecture": {
            "layers": shape.layers,
            "hidden": shape.hidden,
            "heads": shape.heads,
            "intermediate": shape.intermediate,
            "vocabulary": shape.vocabulary,
            "positions": shape.positions,
            "token_types": shape.token_types,
            "embedding_norm_epsilon": shape.norm_epsilon,
            "pooling": shape.pooling,
        },
        "replacements": model.replacements.model_dump(),
        "buckets": list(buckets),
        "ranges": ranges,
        "accuracy": accuracy,
        "provenance": provenance,
    }
    with written_bundle(directory) as target:
        (target / "config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        save_file(_client_tensors(model), target / "client.safetensors")
        save_file(_server_tensors(model), target / "server.safetensors")
        shutil.copyfile(tokenizer, target / "tokenizer.json")
        (target / "README.md").write_text(model_card(document), encoding="utf-8")


def exportable(model: Encoder, task: Task) -> str | None:
    """Why no bundle can hold the model, in one line; None if one can."""
    found = model.replacements
    if model.projection is not None:
        return "no bundle can hold embeddings that are projected to another width, as ELECTRA's are"
    if task.kind == "tokens":
        return "no bundle can hold a head for every token: the encrypted runtime answers for the first token only"
    if found.softmax not in ENCRYPTED_SOFTMAX:
        evaluated = ", ".join(ENCRYPTED_SOFTMAX)
        return f"no bundle can hold softmax {found.softmax!r}: the encrypted runtime evaluates {evaluated}"
    wanted = {"activation": "quadratic", "norm": "affine_centred", "pooler": "linear"}
    for operation, name in wanted.items():
        if getattr(found, operation) != name:
            return (
                f"no bundle can hold {operation} {getattr(found, operation)!r}: the encrypted runtime evaluates {name}"
            )
    return None


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().half().contiguous()


def _client_tensors(model: Encoder) -> dict[str, torch.Tensor]:
    return {
        "embeddings.word": _half(model.word.weight),
        "embeddings.position": _half(model.position.weight),
        "embeddings.token_type": _half(model.token_type.weight),
        "embeddings.norm.weight": _half(model.embedding_norm.weight),
        "embeddings.norm.bias": _half(model.embedding_norm.bias),
    }


def _server_tensors(model: Encoder) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, linear in (("pooler", model.pooler), ("classifier", model.classifier)):
        if not isinstance(linear, nn.Linear):
            continue  # a head on the mean has no pooler, a sentence encoder no classifier
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = _half(linear.weight), _half(linear.bias)
    for index, layer in enumerate(model.layers):
        if not isinstance(layer, Layer):
            raise TypeError("a bundle holds layers of thex.encoder only")
        prefix = f"layers.{index}"
        for name in ("query", "key", "value", "attention_output", "up", "down"):
            linear = getattr(layer, name)
            tensors[f"{prefix}.{name}.weight"] = _half(linear.weight)
            tensors[f"{prefix}.{name}.bias"] = _half(linear.bias)
        for name in ("attention_norm", "output_norm"):
            norm = getattr(layer, name).replaced
            if not isinstance(norm, CentredAffineNorm):
                raise TypeError("a bundle's norms are affine_centred")
            tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"] = _half(norm.weight), _half(norm.bias)
        softmax, activation = layer.softmax.replaced, layer.activation.replaced
        if not isinstance(softmax, QuadraticSoftmax | LinearSoftmax) or not isinstance(activation, QuadraticActivation):
            raise TypeError("a bundle's softmax and activation are polynomials")
        tensors[f"{prefix}.attention.coefficients"] = _half(softmax.coefficients())
        tensors[f"{prefix}.activation.coefficients"] = _half(activation.coefficients())
    return tensors
