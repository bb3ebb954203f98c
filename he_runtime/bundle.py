"""Reading a bundle: the directory in which a trained model reaches the encrypted runtime.

Every file is checked against the manifest's SHA-256 before it is used. The client half is a bundle of its own that lacks
`server.safetensors`.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load as load_tensors

from he_runtime.errors import BundleError, RangeError

FORMAT_VERSION = 1
CLIENT_FILES = ("config.json", "client.safetensors", "tokenizer.json")
Positive = Annotated[float, Field(gt=0)]
Pooling = Literal["first", "mean"]
"""What of the last layer the head reads: the first token through a pooler, or the mean over all tokens as it is."""
Softmax = Literal["quadratic", "quadratic_centred", "linear"]
"""Polynomials of a score, or of a score less its row's mean, that stand for a softmax."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(_Strict):
    """What the model answers.

    An embedding has no labels: its numbers are the sentence's vector, not yet of unit length. A search has none either: its
    numbers are the vector's products with every passage's unit vector, and then the vector itself.
    """

    name: str
    kind: Literal["classification", "regression", "embedding", "search"]
    labels: tuple[str, ...]
    pair: bool
    passages: Annotated[int, Field(ge=0)] = 0
    """Of a search: how many."""


class Architecture(_Strict):
    """Shape of the encoder."""

    layers: Annotated[int, Field(ge=1, le=64)]
    hidden: Annotated[int, Field(ge=2, le=8192)]
    heads: Annotated[int, Field(ge=1, le=256)]
    intermediate: Annotated[int, Field(ge=2, le=65536)]
    vocabulary: Annotated[int, Field(ge=1)]
    positions: Annotated[int, Field(ge=1)]
    token_types: Annotated[int, Field(ge=1)]
    embedding_norm_epsilon: Positive
    pooling: Pooling = "first"

    @property
    def head_size(self) -> int:
        """Features of one head."""
        return self.hidden // self.heads


class Replacements(_Strict):
    """The polynomial that stands for each operation."""

    softmax: Softmax
    activation: Literal["quadratic"]
    norm: Literal["affine_centred"]
    pooler: Literal["linear"]


class LayerRanges(_Strict):
    """Largest absolute values allowed at the points of one layer (calibrated, margin included)."""

    query: Positive
    key: Positive
    value: Positive
    score: Positive
    attention: Positive
    context: Positive
    residual: Positive
    preactivation: Positive
    activation: Positive
    output: Positive


class Ranges(_Strict):
    """Largest absolute values allowed anywhere in the model."""

    embedding: Positive
    logits: Positive
    length: Positive | None = None
    """Of a sentence encoder's vector, Euclidean; None where it is not bounded."""
    layers: tuple[LayerRanges, ...]


class BundleConfig(BaseModel):
    """config.json; accuracy and provenance are free-form."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal["thex-bundle"]
    format_version: Literal[1]
    name: str
    task: Task
    architecture: Architecture
    replacements: Replacements
    buckets: tuple[int, ...]
    ranges: Ranges
    accuracy: dict[str, object] = Field(default_factory=dict)


@dataclass(frozen=True)
class LayerWeights:
    """One encoder layer, float64. Matrices act on row vectors: y = x·W + b, so shapes are [in, out]."""

    query: NDArray[np.float64]
    query_bias: NDArray[np.float64]
    key: NDArray[np.float64]
    key_bias: NDArray[np.float64]
    value: NDArray[np.float64]
    value_bias: NDArray[np.float64]
    attention_output: NDArray[np.float64]
    attention_output_bias: NDArray[np.float64]
    up: NDArray[np.float64]
    up_bias: NDArray[np.float64]
    down: NDArray[np.float64]
    down_bias: NDArray[np.float64]
    attention_coefficients: NDArray[np.float64]  # [heads, 3]: a, b, c of a·S² + b·S + c
    activation_coefficients: NDArray[np.float64]  # [intermediate, 3], highest degree first
    attention_norm: NDArray[np.float64]
    attention_norm_bias: NDArray[np.float64]
    output_norm: NDArray[np.float64]
    output_norm_bias: NDArray[np.float64]


@dataclass(frozen=True)
class EncoderWeights:
    """Everything that the server's program is made from."""

    architecture: Architecture
    replacements: Replacements
    layers: tuple[LayerWeights, ...]
    pooler: NDArray[np.float64] | None
    """None where the mean over tokens is read."""
    pooler_bias: NDArray[np.float64]
    classifier: NDArray[np.float64]
    """Of a sentence encoder without a head, the identity."""
    classifier_bias: NDArray[np.float64]


@dataclass(frozen=True)
class ClientHalf:
    """The public half of a bundle, verified against its digests: what turns text into numbers and numbers into labels."""

    directory: Path
    config: BundleConfig

    @classmethod
    def open(cls, directory: Path) -> "ClientHalf":
        """Read and verify; BundleError names the file that is missing or damaged."""
        _verify(directory, CLIENT_FILES)
        return cls(directory, _read_config(directory))

    @cached_property
    def digest(self) -> str:
        """Of the whole bundle, the server's half too, whose digests the manifest has."""
        return _manifest_digest(self.directory)

    @cached_property
    def _embeddings(self) -> dict[str, NDArray[np.float64]]:
        architecture = self.config.architecture
        hidden = architecture.hidden
        return _tensors(
            self.directory / "client.safetensors",
            {
                "embeddings.word": (architecture.vocabulary, hidden),
                "embeddings.position": (architecture.positions, hidden),
                "embeddings.token_type": (architecture.token_types, hidden),
                "embeddings.norm.weight": (hidden,),
                "embeddings.norm.bias": (hidden,),
            },
        )

    def embed(self, token_ids: list[int], token_types: list[int] | None = None) -> NDArray[np.float64]:
        """Embedding lookup and its exact LayerNorm: float64 [tokens, hidden].

        Raises RangeError when a value leaves the calibrated range, ValueError when there are too many tokens.
        """
        tables = self._embeddings
        architecture = self.config.architecture
        types = token_types or [0] * len(token_ids)
        if not 0 < len(token_ids) <= architecture.positions or len(types) != len(token_ids):
            raise ValueError(f"{len(token_ids)} tokens; the model takes 1 to {architecture.positions}")
        if min(token_ids) < 0 or max(token_ids) >= architecture.vocabulary:
            raise ValueError(f"token id outside the vocabulary of {architecture.vocabulary}")
        if min(types) < 0 or max(types) >= architecture.token_types:
            raise ValueError(f"token type outside the {architecture.token_types} of the model")
        total = (
            tables["embeddings.word"][token_ids]
            + tables["embeddings.position"][: len(token_ids)]
            + tables["embeddings.token_type"][types]
        )
        centred = total - total.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + architecture.embedding_norm_epsilon)
        embedded = centred / deviation * tables["embeddings.norm.weight"] + tables["embeddings.norm.bias"]
        largest = float(np.abs(embedded).max())
        if not largest <= self.config.ranges.embedding:
            raise RangeError(
                f"an embedding value of {largest:.3g} is outside the calibrated range ±{self.config.ranges.embedding:.3g}; "
                "this text is unlike what the model was calibrated on, so no label is given"
            )
        return np.asarray(embedded, np.float64)

    def expect_vector(self, outputs: NDArray[np.float64]) -> None:
        """RangeError where the vector that a model's outputs end with is longer than its range; only vectors have one."""
        most = self.config.ranges.length
        if most is None:
            return
        length = float(np.linalg.norm(outputs[-self.config.architecture.hidden :]))
        if not length <= most:
            raise RangeError(
                f"the vector is {length:.3g} long, beyond the calibrated range of {most:.3g}: values inside the model left their "
                "range on this text, so no answer is given"
            )


@dataclass(frozen=True)
class Bundle:
    """A whole bundle, verified against its digests."""

    directory: Path
    config: BundleConfig
    digest: str
    """SHA-256 of manifest.json: names this exact model."""

    @classmethod
    def open(cls, directory: Path) -> "Bundle":
        """Read and verify every file; BundleError names the one that is missing or damaged."""
        directory = Path(directory)
        _verify(directory, (*CLIENT_FILES, "server.safetensors"))
        return cls(directory, _read_config(directory), _manifest_digest(directory))

    @property
    def client_half(self) -> ClientHalf:
        """The part a client may see."""
        return ClientHalf(self.directory, self.config)

    def client_half_files(self) -> dict[str, bytes]:
        """Files to hand to a client, by name, as they were when the bundle was opened; BundleError if they are no more."""
        files = {name: (self.directory / name).read_bytes() for name in (*CLIENT_FILES, "manifest.json")}
        listed = json.loads(files["manifest.json"])["files"]
        same = hashlib.sha256(files["manifest.json"]).hexdigest() == self.digest
        if not same or any(hashlib.sha256(files[n]).hexdigest() != listed[n]["sha256"] for n in CLIENT_FILES):
            raise BundleError(f"{self.directory} was replaced while it was read; start again")
        return files

    def weights(self) -> EncoderWeights:
        """The encoder's weights, float64, shapes checked against config.json."""
        architecture = self.config.architecture
        hidden, wide, classes = architecture.hidden, architecture.intermediate, max(1, len(self.config.task.labels))
        shapes: dict[str, tuple[int, ...]] = {}
        if architecture.pooling == "first":
            shapes |= {"pooler.weight": (hidden, hidden), "pooler.bias": (hidden,)}
        task = self.config.task
        if task.kind == "search":
            shapes["passages"] = (task.passages, hidden)
        elif task.kind != "embedding":
            shapes |= {"classifier.weight": (classes, hidden), "classifier.bias": (classes,)}
        for layer in range(architecture.layers):
            for name, outputs, inputs in (
                ("query", hidden, hidden),
                ("key", hidden, hidden),
                ("value", hidden, hidden),
                ("attention_output", hidden, hidden),
                ("up", wide, hidden),
                ("down", hidden, wide),
            ):
                shapes[f"layers.{layer}.{name}.weight"] = (outputs, inputs)
                shapes[f"layers.{layer}.{name}.bias"] = (outputs,)
            for name in ("attention_norm", "output_norm"):
                shapes[f"layers.{layer}.{name}.weight"] = (hidden,)
                shapes[f"layers.{layer}.{name}.bias"] = (hidden,)
            shapes[f"layers.{layer}.attention.coefficients"] = (architecture.heads, 3)
            shapes[f"layers.{layer}.activation.coefficients"] = (wide, 3)
        tensors = _tensors(self.directory / "server.safetensors", shapes)
        pooler, classifier = tensors.get("pooler.weight"), tensors.get("classifier.weight", np.eye(hidden))
        if task.kind == "search":
            classifier = np.concatenate([tensors["passages"], classifier])
        return EncoderWeights(
            architecture,
            self.config.replacements,
            tuple(_layer(tensors, layer) for layer in range(architecture.layers)),
            pooler.T if pooler is not None else None,
            tensors.get("pooler.bias", np.zeros(hidden)),
            classifier.T,
            tensors.get("classifier.bias", np.zeros(len(classifier))),
        )


def _layer(tensors: dict[str, NDArray[np.float64]], layer: int) -> LayerWeights:
    def of(name: str) -> NDArray[np.float64]:
        return tensors[f"layers.{layer}.{name}"]

    return LayerWeights(
        query=of("query.weight").T,
        query_bias=of("query.bias"),
        key=of("key.weight").T,
        key_bias=of("key.bias"),
        value=of("value.weight").T,
        value_bias=of("value.bias"),
        attention_output=of("attention_output.weight").T,
        attention_output_bias=of("attention_output.bias"),
        up=of("up.weight").T,
        up_bias=of("up.bias"),
        down=of("down.weight").T,
        down_bias=of("down.bias"),
        attention_coefficients=of("attention.coefficients"),
        activation_coefficients=of("activation.coefficients"),
        attention_norm=of("attention_norm.weight"),
        attention_norm_bias=of("attention_norm.bias"),
        output_norm=of("output_norm.weight"),
        output_norm_bias=of("output_norm.bias"),
    )


def _verify(directory: Path, names: tuple[str, ...]) -> None:
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        listed = {name: (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()}
        known = manifest["format"] == "thex-bundle-manifest" and manifest["format_version"] == FORMAT_VERSION
    except FileNotFoundError:
        raise BundleError(f"{directory} is not a bundle: it has no manifest.json; `thex train` writes one") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{directory / 'manifest.json'} is damaged; export the bundle again") from None
    if not known:
        raise BundleError(f"{directory} is of another format than thex-bundle version {FORMAT_VERSION}")
    for name in names:
        if name not in listed or not (directory / name).is_file():
            raise BundleError(f"{directory} lacks {name}; export the bundle again")
        content = (directory / name).read_bytes()
        if (hashlib.sha256(content).hexdigest(), len(content)) != listed[name]:
            raise BundleError(f"{directory / name} differs from its digest in manifest.json; the bundle is damaged")


def _manifest_digest(directory: Path) -> str:
    return hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()


def _read_config(directory: Path) -> BundleConfig:
    try:
        config = BundleConfig.model_validate_json((directory / "config.json").read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{directory / 'config.json'}: {where or 'document'}: {first['msg']}") from None
    if config.architecture.hidden % config.architecture.heads:
        raise BundleError(f"{config.architecture.heads} heads do not divide {config.architecture.hidden} features")
    task = config.task
    if task.kind in ("embedding", "search") and (task.labels or config.architecture.pooling != "mean"):
        raise BundleError(f"{task.kind} reads the mean over tokens and has no labels; config.json says otherwise")
    if (task.kind == "search") != (task.passages > 0):
        raise BundleError(f"a {task.kind} of {task.passages} passages; a search has some, and nothing else has any")
    if len(config.ranges.layers) != config.architecture.layers:
        raise BundleError("config.json has ranges for another number of layers than the architecture")
    if not config.buckets or any(bucket < 1 or bucket & (bucket - 1) for bucket in config.buckets):
        raise BundleError(f"buckets {config.buckets} are not powers of two")
    return config


def _tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.float64]]:
    loaded = load_tensors(path.read_bytes())
    tensors = {}
    for name, shape in shapes.items():
        if name not in loaded:
            raise BundleError(f"{path} lacks the tensor {name}")
        if loaded[name].shape != shape:
            raise BundleError(f"{path}: {name} has shape {loaded[name].shape}, config.json says {shape}")
        tensors[name] = loaded[name].astype(np.float64)
        if not np.isfinite(tensors[name]).all():
            raise BundleError(f"{path}: {name} holds a value that is not finite")
    return tensors
