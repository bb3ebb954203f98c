"""A search bundle: a sentence encoder, and the vectors of passages as what its answer is multiplied with.

The operator's passages lie in the clear at the operator; the query never does. A search is one query of the encoder whose last
matrix is the passages: its scores come back encrypted, and the server knows neither them nor the vector they are made of.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from he_runtime.bundle import CLIENT_FILES, Bundle
from he_runtime.errors import RangeError
from services.plain_answers import PlainAnswers
from services.truncation import truncating_tokenizer
from thex.bundle_directory import expect_replaceable, written_bundle

Progress = Callable[[int, int], None]


def passage_vectors(
    bundle: Bundle, passages: Sequence[str], progress: Progress = lambda _done, _total: None
) -> NDArray[np.float32]:
    """Unit vectors float32 [passages, features] by the plain polynomial model. Longer passages are cut, as in training.

    ValueError names a passage whose values leave their range, and what is wrong with a bundle that does not embed.
    """
    _expect_embeddings(bundle)
    model, config = PlainAnswers(bundle), bundle.config
    tokenizer = truncating_tokenizer(bundle)
    vectors = np.zeros((len(passages), config.architecture.hidden), np.float32)
    for number, passage in enumerate(passages):
        encoding = tokenizer.encode(passage)
        try:
            vector = model.answer(list(encoding.ids), list(encoding.type_ids))
            length = float(np.linalg.norm(vector))
            if length == 0:
                raise RangeError("its vector is zero, which points nowhere")
        except RangeError as error:
            raise ValueError(f"passage {number + 1} cannot be embedded: {error}") from None
        vectors[number] = vector / length
        progress(number + 1, len(passages))
    return vectors


def write_search_bundle(
    bundle: Bundle, vectors: NDArray[np.float32], directory: Path, buckets: Sequence[int] | None = None
) -> None:
    """Write a bundle that searches them. vectors: float32 [passages, features], of unit length.

    buckets: which of the encoder's a query may have, None for all; a server plans, and a client makes keys, for these alone.
    Replaces a bundle of the same path. ValueError for no passages, and as `expect_indexable`.
    """
    expect_indexable(bundle, directory, buckets)
    config = bundle.config
    if not len(vectors):
        raise ValueError("no passages: a search needs at least one")
    document: dict[str, Any] = json.loads((bundle.directory / "config.json").read_bytes())
    document["name"] = f"{config.name}-search"
    document["task"] = {"name": "search", "kind": "search", "labels": [], "pair": False, "passages": len(vectors)}
    # A score is at most as long as the vector it is made of.
    document["ranges"]["logits"] = config.ranges.logits * float(np.sqrt(config.architecture.hidden))
    document["accuracy"] = {}
    document["buckets"] = sorted(set(buckets or config.buckets))
    with written_bundle(directory) as target:
        (target / "config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for name in CLIENT_FILES:
            if name != "config.json":
                shutil.copyfile(bundle.directory / name, target / name)
        tensors = load_file(bundle.directory / "server.safetensors")
        save_file({**tensors, "passages": np.ascontiguousarray(vectors, np.float32)}, target / "server.safetensors")


def expect_indexable(bundle: Bundle, directory: Path, buckets: Sequence[int] | None = None) -> None:
    """ValueError for a bundle that does not embed, a bucket it has not, or a directory that no search bundle may take."""
    _expect_embeddings(bundle)
    unknown = sorted(set(buckets or ()) - set(bundle.config.buckets))
    if unknown:
        known = ", ".join(map(str, bundle.config.buckets))
        raise ValueError(f"{bundle.directory} has no bucket {unknown[0]}: its buckets are {known}")
    if directory.resolve() == bundle.directory.resolve():
        raise ValueError(f"{directory} is the encoder itself, which the search would replace; choose another place")
    expect_replaceable(directory)


def _expect_embeddings(bundle: Bundle) -> None:
    if bundle.config.task.kind != "embedding":
        raise ValueError(f"{bundle.directory} is for {bundle.config.task.kind}; a search needs a bundle that embeds")
