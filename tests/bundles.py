"""Small bundles for tests of services: real files, real digests, random weights."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.random_models import random_weights

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "the", "was")


def write_small_bundle(
    directory: Path,
    *,
    logit_range: float = 50.0,
    seed: int = 0,
    regression_of_pairs: bool = False,
    embedding: bool = False,
    length: float | None = None,
) -> Path:
    """One layer of 8 features, 2 heads, buckets 4 and 8: 8 levels (9 of an embedding), which N=16384 holds."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    classes = None if embedding else 1 if regression_of_pairs else 2
    weights = random_weights(1, 8, 2, 16, seed=seed, classes=classes, pooling="mean" if embedding else "first")
    generator = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    half = {
        "embeddings.word": generator.normal(size=(16, 8)),
        "embeddings.position": generator.normal(size=(128, 8)) * 0.1,
        "embeddings.token_type": np.zeros((2, 8)),
        "embeddings.norm.weight": np.ones(8),
        "embeddings.norm.bias": np.zeros(8),
    }
    save_file({name: value.astype(np.float16) for name, value in half.items()}, directory / "client.safetensors")
    tensors = {}
    if weights.pooler is not None:
        tensors |= {"pooler.weight": weights.pooler.T, "pooler.bias": weights.pooler_bias}
    if not embedding:
        tensors |= {"classifier.weight": weights.classifier.T, "classifier.bias": weights.classifier_bias}
    for index, layer in enumerate(weights.layers):
        for name in ("query", "key", "value", "attention_output", "up", "down"):
            tensors[f"layers.{index}.{name}.weight"] = getattr(layer, name).T
            tensors[f"layers.{index}.{name}.bias"] = getattr(layer, f"{name}_bias")
        for name in ("attention_norm", "output_norm"):
            tensors[f"layers.{index}.{name}.weight"] = getattr(layer, name)
            tensors[f"layers.{index}.{name}.bias"] = getattr(layer, f"{name}_bias")
        tensors[f"layers.{index}.attention.coefficients"] = layer.attention_coefficients
        tensors[f"layers.{index}.activation.coefficients"] = layer.activation_coefficients
    contiguous = {name: np.ascontiguousarray(value, np.float16) for name, value in tensors.items()}
    save_file(contiguous, directory / "server.safetensors")
    points = (
        "query",
        "key",
        "value",
        "score",
        "attention",
        "context",
        "residual",
        "preactivation",
        "activation",
        "output",
    )
    task = {"name": "SST-2", "kind": "classification", "labels": ["negative", "positive"], "pair": False}
    if regression_of_pairs:
        task = {"name": "STS-B", "kind": "regression", "labels": [], "pair": True}
    if embedding:
        task = {"name": "sentences", "kind": "embedding", "labels": [], "pair": False}
    config = {
        "format": "thex-bundle",
        "format_version": 1,
        "name": "small",
        "task": task,
        "architecture": weights.architecture.model_dump(),
        "replacements": weights.replacements.model_dump(),
        "buckets": [4, 8],
        "ranges": {"embedding": 10.0, "logits": logit_range, "length": length, "layers": [dict.fromkeys(points, 10.0)]},
    }
    (directory / "config.json").write_text(json.dumps(config))
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
            "half": "both",
        }
        for path in directory.iterdir()
    }
    manifest = {"format": "thex-bundle-manifest", "format_version": 1, "files": files}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory
