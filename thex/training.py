"""The workflow, stage by stage: teacher, exact student, distilled student, replaced student, bundle.

Each stage leaves its weights as safetensors in the run directory and is skipped when they are there, so a stopped run resumes at
the stage it was in and ends with the same result: every stage seeds its own generators.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from thex.bundle import write_bundle
from thex.calibration import calibrate, measure_ranges
from thex.checkpoints import load_checkpoint, locate
from thex.config import EncoderConfig, TrainingConfig
from thex.data import Batch, Encoded, encode, length_weighted_subset, load_tokenizer, pad, shuffled
from thex.distillation import hidden_loss, label_loss, logit_loss, range_penalty
from thex.encoder import EXACT, Encoder, Ratios
from thex.evaluation import predict, report
from thex.hostile import hostile_texts
from thex.progress import Progress, silent
from thex.provenance import provenance
from thex.recorder import Recorder
from thex.students import copy_embeddings, new_student, token_counts
from thex.tasks import find_task, read_split

WARMUP_STEPS = 100
SUBSET_CAP, SUBSET_POWER = 20, 1.3  # see length_weighted_subset; TRAINING: long texts teach more a minute
# Where each operation moves from exact to replaced, as fractions of the stage.
RAMPS = {"activation": (0.0, 0.15), "softmax": (0.1, 0.3), "norm": (0.25, 0.45), "pooler": (0.0, 0.15)}


@dataclass(frozen=True)
class Run:
    """What all stages share."""

    config: TrainingConfig
    directory: Path
    device: torch.device
    train: Encoded
    dev: Encoded
    progress: Progress


def train(
    config: TrainingConfig,
    data_directory: Path,
    run_directory: Path,
    bundle_directory: Path,
    progress: Progress = silent,
) -> dict[str, object]:
    """Run all stages, or those that are missing, and write the bundle. Returns the report that the model card shows."""
    run_directory.mkdir(parents=True, exist_ok=True)
    _keep_config(config, run_directory)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    )
    task = find_task(config.task)
    teacher_directory = locate(config.teacher)
    tokenizer_path = teacher_directory / "tokenizer.json"
    tokenizer = load_tokenizer(tokenizer_path, config.positions)
    examples = read_split(task, data_directory, "train")
    if config.train_sentences:
        examples = random.Random(config.seed).sample(examples, min(config.train_sentences, len(examples)))
    run = Run(
        config,
        run_directory,
        device,
        encode(tokenizer, examples),
        encode(tokenizer, read_split(task, data_directory, "dev")),
        progress,
    )
    subset = run.train.subset(
        length_weighted_subset(run.train, config.distilled_sentences, SUBSET_CAP, SUBSET_POWER, config.seed)
    )
    targets = _teacher_logits(run, subset, task.outputs)
    shape = EncoderConfig(
        vocabulary=tokenizer.get_vocab_size(),
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        intermediate=config.intermediate,
        positions=config.positions,
        labels=task.outputs,
        dropout=config.dropout,
    )

    def fresh() -> Encoder:
        return new_student(shape, config.replacements, config.seed).to(device)

    student = _stage(run, "student", fresh(), lambda model: _student(run, model))
    exact = _stage(run, "exact", student, lambda model: _distil(run, model, subset, targets))
    replaced = fresh()
    replaced.load_state_dict(exact.state_dict())
    replaced = _stage(run, "replaced", replaced, lambda model: _replace(run, model, exact, subset, targets))
    for model in (exact, replaced):
        _round_to_half(model)
    ranges = measure_ranges(replaced, run.train, config)
    figures = report(exact, replaced, run.dev, task, ranges)
    write_bundle(
        bundle_directory,
        replaced,
        task,
        config,
        ranges,
        {"dev": figures},
        provenance(config, teacher_directory.name, device),
        tokenizer_path,
    )
    return {"bundle": str(bundle_directory), **figures}


def _keep_config(config: TrainingConfig, directory: Path) -> None:
    """Write the resolved configuration, and refuse to resume a run that had another."""
    path = directory / "config.json"
    text = config.model_dump_json(indent=2)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path} is of a run with another configuration; choose another run directory")
    path.write_text(text)


def _stage(run: Run, name: str, model: Encoder, work: Callable[[Encoder], None]) -> Encoder:
    """Load the stage's result, or do its work and keep it."""
    path = run.directory / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path, device=str(run.device)))
    else:
        torch.manual_seed(run.config.seed)
        model.train()
        work(model)
        partial = path.with_suffix(".part")
        save_file({key: value.contiguous().cpu() for key, value in model.state_dict().items()}, partial)
        partial.rename(path)
    return model.eval()


def _teacher_logits(run: Run, subset: Encoded, outputs: int) -> torch.Tensor:
    """The fine-tuned teacher's logits [len(subset), outputs]."""
    path = run.directory / "teacher_logits.safetensors"
    if not path.exists():
        config = run.config
        torch.manual_seed(config.seed)
        teacher = load_checkpoint(config.teacher, pooling="mean", labels=outputs).to(run.device)
        chosen = run.train.subset(length_weighted_subset(run.train, config.teacher_sentences, 16, 1.0, config.seed + 1))
        for parameter in (*teacher.word.parameters(), *teacher.position.parameters(), *teacher.token_type.parameters()):
            parameter.requires_grad = False
        teacher.train()
        for step in _steps(run, "teacher", teacher, chosen, 32, config.teacher_epochs, config.teacher_learning_rate):
            logits = teacher(step.batch.ids, step.batch.mask, step.batch.types)
            step.descend(label_loss(logits, chosen.labels[step.batch.indices].to(run.device)))
        save_file({"logits": predict(teacher.eval(), subset, EXACT), "dev": predict(teacher, run.dev, EXACT)}, path)
    return load_file(path)["logits"].to(run.device)


def _student(run: Run, model: Encoder) -> None:
    """Embeddings from the teacher's by PCA, then fine-tuning on labels alone."""
    config = run.config
    teacher = load_checkpoint(config.teacher, pooling="mean")
    copy_embeddings(model, teacher, token_counts(run.train.ids, model.config.vocabulary))
    for step in _steps(
        run, "student", model, run.train, config.batch, config.epochs_student, config.learning_rate_student
    ):
        logits = model(step.batch.ids, step.batch.mask, step.batch.types)
        step.descend(label_loss(logits, run.train.labels[step.batch.indices].to(run.device)))


def _distil(run: Run, model: Encoder, subset: Encoded, targets: torch.Tensor) -> None:
    """The exact student learns the teacher's logits, and to keep its values small."""
    config = run.config
    for step in _steps(run, "distil", model, subset, config.batch, config.epochs_distil, config.learning_rate_distil):
        recorder = Recorder()
        batch = step.batch
        logits = model(batch.ids, batch.mask, batch.types, EXACT, recorder)
        loss = logit_loss(logits, targets[batch.indices])
        loss = loss + config.label_weight * label_loss(logits, subset.labels[batch.indices].to(run.device))
        step.descend(loss + config.range_weight * range_penalty(recorder, config.range_bounds, config.layers))


def _replace(run: Run, model: Encoder, exact: Encoder, subset: Encoded, targets: torch.Tensor) -> None:
    """One operation after another moves to its replacement, held to the exact student and inside its ranges."""
    config = run.config
    calibrate(model, subset, config)
    exact.eval()
    generator = random.Random(config.seed)
    for step in _steps(
        run, "replace", model, subset, config.batch, config.epochs_replace, config.learning_rate_replace
    ):
        ratios = _ratios(step.fraction)
        recorder, reference = Recorder(), Recorder()
        batch = step.batch
        logits = model(batch.ids, batch.mask, batch.types, ratios, recorder)
        with torch.no_grad():
            exact_logits = exact(batch.ids, batch.mask, batch.types, EXACT, reference)
        loss = logit_loss(logits, targets[batch.indices]) + logit_loss(logits, exact_logits)
        loss = loss + config.label_weight * label_loss(logits, subset.labels[batch.indices].to(run.device))
        loss = loss + hidden_loss(recorder, reference, batch.mask, config.layers)
        loss = loss + config.range_weight * range_penalty(recorder, config.range_bounds, config.layers)
        if config.hostile_every and step.number % config.hostile_every == 0:
            odd = hostile_texts(subset, config.hostile_batch, model.config.vocabulary, config.positions, generator)
            odd_batch = pad(odd, range(len(odd)), run.device)
            unusual = Recorder()
            model(odd_batch.ids, odd_batch.mask, odd_batch.types, ratios, unusual)
            # Clamped: an input that explodes must pull, not overturn, the step.
            loss = loss + config.range_weight * range_penalty(unusual, config.range_bounds, config.layers).clamp(max=50)
        step.descend(loss)


def _ratios(fraction: float) -> Ratios:
    def ratio(operation: str) -> float:
        start, stop = RAMPS[operation]
        return min(1.0, max(0.0, (fraction - start) / (stop - start)))

    return Ratios(ratio("softmax"), ratio("activation"), ratio("norm"), ratio("pooler"))


@dataclass(frozen=True)
class Step:
    """One optimiser step: the batch, and what to call with its loss."""

    number: int
    fraction: float
    batch: Batch
    descend: Callable[[torch.Tensor], None]


def _steps(
    run: Run, name: str, model: Encoder, data: Encoded, batch_size: int, epochs: float, peak: float
) -> Iterator[Step]:
    """AdamW with warm-up and linear decay, gradient norm at most 1; a step whose gradient is not finite is left out."""
    total = max(1, int(epochs * math.ceil(len(data) / batch_size)))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=peak, weight_decay=run.config.weight_decay)
    generator = random.Random(run.config.seed)

    def descend(loss: torch.Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if torch.isfinite(norm):
            optimiser.step()

    number = 0
    while number < total:
        for batch in shuffled(data, batch_size, run.device, generator):
            rate = peak * min(1.0, (number + 1) / WARMUP_STEPS) * max(0.02, 1 - number / total)
            for group in optimiser.param_groups:
                group["lr"] = rate
            yield Step(number, number / total, batch, descend)
            number += 1
            run.progress(name, number, total)
            if number == total:
                break


@torch.no_grad()
def _round_to_half(model: Encoder) -> None:
    """What is shipped is float16, so what is measured is, too. Coefficients are rounded as evaluated, behind their floor."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
