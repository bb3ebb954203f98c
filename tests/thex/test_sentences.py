"""A sentence encoder through the workflow: what it learns from, the bundle the runtime reads, and how it is measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from he_runtime.bundle import Bundle
from he_runtime.plain_model import logits as plain_outputs
from services.embedding_quality import embedding_quality
from services.evaluation import evaluate
from tests.bundles import write_small_bundle
from tests.thex.test_bundle import write_task
from tests.thex.test_pretraining import write_teacher
from thex.checkpoints import load_checkpoint
from thex.config import EncoderConfig
from thex.data import encode, load_tokenizer
from thex.encoder import EXACT, REPLACED, Encoder
from thex.evaluation import predict
from thex.metrics import agreement, cosine_spearman, cosines
from thex.recipes import SENTENCE_ENCODER
from thex.runs import RunConfig
from thex.starting import starting_point
from thex.tasks import SENTENCES, read_split, task_of
from thex.workflow import run_recipe

WORDS = ("fine", "dull", "film", "a", "and", "moving", "stupid")
RECIPE = SENTENCE_ENCODER.model_copy(
    update={
        "stages": tuple(stage.model_copy(update={"texts": 64}) for stage in SENTENCE_ENCODER.stages),
        "positions": 16,
        "buckets": (8, 16),
        "batch": 8,
        "calibration_sentences": 24,
    }
)


def write_root(root: Path) -> Path:
    directory = root / "STS-B"
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in ("train", "dev"):
        rows = []
        for number in range(30):
            one, other = (" ".join(generator.choice(WORDS, 1 + number % 6)) for _ in range(2))
            rows.append(f"{one}\t{other}\t{number % 6}")
        (directory / f"{split}.tsv").write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows) + "\n")
    return root


def test_sentences_are_those_of_all_train_files_and_the_judged_pairs_of_stsb(tmp_path: Path) -> None:
    root = write_root(tmp_path)
    assert task_of(root) is SENTENCES
    train, dev = read_split(SENTENCES, root, "train"), read_split(SENTENCES, root, "dev")
    texts = [example.first for example in train]
    assert len(texts) == len(set(texts)) > 20
    assert all(example.second is None for example in (*train, *dev))
    assert len(dev) == 60
    assert [example.label for example in dev[:4]] == [0, 0, 1, 1]


def test_an_embeddings_metric_is_of_pairs_and_agreement_is_a_cosine() -> None:
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [1, 0], [1, 1]])
    assert cosine_spearman(vectors, np.array([5.0, 5, 0, 0, 3, 3]))["spearman"] == pytest.approx(100)
    assert cosine_spearman(vectors, np.array([0.0, 0, 5, 5, 3, 3]))["spearman"] == pytest.approx(-100)
    np.testing.assert_allclose(cosines(vectors, 3 * vectors), 1)
    assert cosines(vectors[:1] * 0, vectors[:1]) == 0
    assert agreement(SENTENCES, vectors, -vectors, np.zeros(6)) == pytest.approx(-100)


def test_the_workflow_makes_a_bundle_that_the_runtime_reads_alike(tmp_path: Path) -> None:
    root, checkpoint = write_root(tmp_path / "data"), write_teacher(tmp_path / "encoder")
    rows = run_recipe(RunConfig(encoder=str(checkpoint), recipe=RECIPE), root, tmp_path / "run", tmp_path / "bundle")
    assert [row["step"] for row in rows] == ["finetune", "activation", "softmax", "norm", "distil", "hold", "calibrate"]
    assert rows[-1]["exported"], rows[-1]["not_exported_because"]
    # Nothing is fine-tuned: the first row is the encoder as it was, and what comes later stays near it.
    exact = load_checkpoint(checkpoint, pooling="mean", head=False, positions=16)
    examples = encode(load_tokenizer(checkpoint / "tokenizer.json", 16), read_split(SENTENCES, root, "dev"))
    own = cosine_spearman(predict(exact, examples, EXACT).numpy(), examples.labels.numpy())
    assert rows[0]["metrics"]["spearman"] == pytest.approx(own["spearman"], abs=0.5)
    assert rows[-1]["agreement_exact"] > 50
    bundle = Bundle.open(tmp_path / "bundle")
    assert (bundle.config.task.kind, bundle.config.architecture.pooling) == ("embedding", "mean")
    length = bundle.config.ranges.length
    assert length is not None
    assert length >= 1.25 * float(predict(exact, examples, EXACT).norm(dim=1).max()) * 0.95
    assert f"a vector's length {length:.3g} (1.25 times" in (tmp_path / "bundle" / "README.md").read_text()
    model = Encoder(
        EncoderConfig(
            vocabulary=16, layers=3, hidden=24, heads=3, intermediate=32, positions=16, pooling="mean", head=False,
            labels=24,
        ),
        RECIPE.replacements,
    )  # fmt: skip
    last = tmp_path / "run" / "encoder" / "sentences" / "seed-0" / "sentence-encoder" / "calibrate"
    model.load_state_dict(load_file(last / "model.safetensors"))
    found = [
        plain_outputs(bundle.weights(), bundle.client_half.embed(ids, types))
        for ids, types in zip(examples.ids[:10], examples.types[:10], strict=True)
    ]
    wanted = predict(model, examples, REPLACED).numpy()[:10]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
    report = evaluate(tmp_path / "bundle", root, "simulate", limit=7, answers=tmp_path / "answers")
    assert (report["count"], report["agree"], report["out_of_range"]) == (8, 100, 0)
    assert 0.9999 < report["worst_cosine"] <= 1 + 1e-6
    # The quality report measures the same two models.
    write_task(root / "SST-2")
    quality = embedding_quality(tmp_path / "bundle", str(checkpoint), root, head_texts=30)
    assert list(quality["STS-B"]) == ["dev"]  # there is no test file
    dev = quality["STS-B"]["dev"]
    assert (dev["pairs"], dev["sentences out of range"]) == (30, 0)
    assert dev["exact"] == pytest.approx(own["spearman"], abs=0.01)
    assert dev["polynomial"] == pytest.approx(rows[-1]["metrics"]["spearman"], abs=0.5)
    assert dev["drop"] == pytest.approx(dev["exact"] - dev["polynomial"], abs=0.02)
    everything = predict(exact, examples, EXACT).numpy()
    shares = cosines(everything, predict(model, examples, REPLACED).numpy())
    assert dev["cosine to exact"]["worst"] == pytest.approx(float(shares.min()), abs=2e-3)
    head = quality["SST-2, linear head"]
    assert (head["learned from"], head["sentences"], head["exact"]) == (30, 40, 100)
    assert quality["hostile"]["one word repeated"]["texts"] == 40
    with pytest.raises(ValueError, match="expected a sentence encoder's bundle"):
        embedding_quality(write_small_bundle(tmp_path / "classifier"), str(checkpoint), root)
    with pytest.raises(ValueError, match="give the checkpoint that the bundle was made of"):
        embedding_quality(write_small_bundle(tmp_path / "other", embedding=True), str(checkpoint), root)


def test_a_fresh_shape_is_no_sentence_encoder() -> None:
    with pytest.raises(ValueError, match="2x128 is no sentence encoder yet"):
        starting_point("2x128", 0, SENTENCES, 16, 0.0, None)


def test_a_head_needs_a_place_for_its_labels() -> None:
    with pytest.raises(ValueError, match="answers with its mean"):
        EncoderConfig(vocabulary=4, layers=1, hidden=8, heads=1, intermediate=8, head=False)
    assert torch.nn.Identity is type(
        Encoder(
            EncoderConfig(
                vocabulary=4, layers=1, hidden=8, heads=1, intermediate=8, head=False, pooling="mean", labels=8
            ),
            RECIPE.replacements,
        ).classifier
    )
