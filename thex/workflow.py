"""The workflow: fine-tune, then a recipe's stages, then calibrate and export; each stage resumes and leaves its metrics.

Under the work directory:

    teachers/<task>/<identity>/                     the larger encoder, and its answers
    <encoder>/<task>/seed-<k>/finetune-<identity>/  the exact student, of all recipes that fine-tune alike
    <encoder>/<task>/seed-<k>/<recipe>/<stage>/     model.safetensors and metrics.json after each stage
    <encoder>/<task>/seed-<k>/<recipe>/calibrate/   weights as shipped, ranges, final metrics
    <encoder>/<task>/seed-<k>/<recipe>/bundle/      what an operator serves, if the runtime evaluates the replacements

A stage whose metrics.json carries the identity it should have (a digest of everything that leads to it) is not run again. One
that was stopped has unfinished-<identity>.safetensors instead, and goes on there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from thex.atomic import alone
from thex.augmentation import altered, joined
from thex.bundle_directory import expect_replaceable
from thex.checkpoints import locate, weights_digest
from thex.data import Encoded, encode, length_weighted_subset, load_tokenizer
from thex.encoder import EXACT, Encoder, Ratios
from thex.evaluation import predict
from thex.export import calibrate_and_export, calibrate_identity
from thex.natural import VERSION, natural_examples, natural_texts
from thex.precision import choose_device
from thex.progress import Progress, silent
from thex.recipes import Operation, Stage, ratios
from thex.runs import Run, RunConfig, identity_of, keep, kept_metrics, measured
from thex.stages import Lesson, learn, start_replacements
from thex.starting import starting_point
from thex.tasks import Example, Task, read_split, task_of
from thex.teachers import TeacherConfig, Teaching, teacher_answers, teacher_logits

SUBSET_CAP, SUBSET_POWER = 20, 1.3  # see length_weighted_subset: long texts teach more a minute
SUBSET_SEED = 0  # one subset for all seeds: the teacher answers it once
UNFINISHED = "unfinished-{}.safetensors"


def run_recipe(
    config: RunConfig,
    data: Path,
    work: Path,
    bundle: Path | None = None,
    progress: Progress = silent,
    *,
    only_finished: bool = False,
) -> list[dict[str, Any]]:
    """Run the stages that are missing; the metrics of all, in order, the last of step "calibrate".

    bundle: where the bundle goes instead of the run's own directory. only_finished: run nothing, NotFinishedError if something
    is missing. ValueError for data that is not a task's.
    """
    if bundle is not None:
        expect_replaceable(bundle)  # before hours of training, not after them
    run = replace(_prepare(config, data, work, progress), only_finished=only_finished)
    recipe = config.recipe
    subset = _subset(run)
    # What stages learn from is made when the first of them has to run: a run that is whole needs none of it.
    taught = functools.cache(lambda: _texts_and_teacher(run, subset))

    natural = functools.cache(lambda: _natural(run, data, _natural_count(run, len(subset))))

    def lesson(exact: Encoder | None, stage: Stage) -> Lesson:
        texts, teacher = taught()
        seen = natural() if exact is not None and not stage.answered else None
        return Lesson(recipe, texts, teacher, exact, config.seed, run.device, progress, seen)

    first, *others, last = run_identities(run, data, len(subset))
    exact = run.start.encoder.to(run.device)

    def fine_tune(unfinished: Path) -> None:
        run.start.prepare(run.train, recipe.positions)
        learn(exact, recipe.finetune, (), lesson(None, recipe.finetune), unfinished)

    rows = [
        _stage(
            run,
            recipe.finetune,
            f"finetune-{first}",
            first,
            exact,
            EXACT,
            None,
            fine_tune,
            taught,
        )
    ]
    exact_dev = predict(exact.eval(), run.dev, EXACT)
    model = Encoder(exact.config, recipe.replacements).to(run.device)
    model.load_state_dict({**model.state_dict(), **_exact_part(exact)})
    for number, (stage, identity) in enumerate(zip(recipe.stages, others, strict=True)):
        before = recipe.replaced_after(number)
        place = f"{recipe.name}/{stage.name}"

        def work_of(
            unfinished: Path, number: int = number, stage: Stage = stage, before: tuple[Operation, ...] = before
        ) -> None:
            if number == 0:
                start_replacements(model, replace(lesson(exact, stage), data=subset))
            learn(model, stage, before, lesson(exact, stage), unfinished)

        rows.append(_stage(run, stage, place, identity, model, ratios(before, stage, 1.0), exact_dev, work_of, taught))
    rows.append(calibrate_and_export(run, model, exact, exact_dev, last, bundle))
    return rows


def run_identities(run: Run, data: Path, texts: int) -> list[str]:
    """Fine-tuning's, each stage's and calibration's: digests of everything that leads to them, one of the one before.

    data: the task's directory. texts: how many of its train file are learned from.
    """
    config, recipe, teacher = run.config, run.config.recipe, _teacher_of(run)
    natural = _natural_count(run, texts)
    identity = identity_of({
        "task": run.task.name, "train": run.train.digest(), "dev": run.dev.digest(), "encoder": run.start.digest,
        "seed": config.seed, "sentences": recipe.sentences, "positions": recipe.positions, "batch": recipe.batch,
        "dropout": recipe.dropout, "bounds": recipe.range_bounds.model_dump(), "hostile_batch": recipe.hostile_batch,
        **({"products": recipe.products} if recipe.products != "float32" else {}),
        **({"altered": recipe.altered_count(texts)} if recipe.altered else {}),
        "teacher": None if teacher is None else teacher.model_dump() | _weights_of(teacher),
    })  # fmt: skip
    found = [identity_of({"before": identity, "stage": _identified(recipe.finetune)})]
    identity = identity_of({"before": found[0], "replacements": recipe.replacements.model_dump()})
    seen = {"natural": [VERSION, natural, _natural_sources(run, data)]} if natural else {}
    for stage in recipe.stages:
        more = {} if stage.answered else seen
        identity = identity_of({"before": identity, "stage": _identified(stage), **more})
        found.append(identity)
    return [*found, calibrate_identity(run, found[-1])]


def _identified(stage: Stage) -> dict[str, Any]:
    """A stage's fields. Some came later than results that others may have, and count where they are used."""
    later = {"held": stage.held > 0, "share": stage.share < 1}
    return stage.model_dump(exclude={name for name, used in later.items() if not used})


def _weights_of(teacher: TeacherConfig) -> dict[str, str]:
    """A directory may hold other weights tomorrow; a package's name, or a hub's, says which they are."""
    directory = Path(teacher.checkpoint).is_dir()
    return {"weights": weights_digest(teacher.checkpoint)} if directory else {}


def identity_of_run(config: RunConfig, data: Path, work: Path) -> str:
    """Of the last step's metrics, without running any: what two machines' runs of the same have in common."""
    run = _prepare(config, data, work, silent)
    return run_identities(run, data, len(_subset(run)))[-1]


def _subset(run: Run) -> Encoded:
    return run.train.subset(
        length_weighted_subset(run.train, run.config.recipe.sentences, SUBSET_CAP, SUBSET_POWER, SUBSET_SEED)
    )


def _texts_and_teacher(run: Run, subset: Encoded) -> tuple[Encoded, torch.Tensor | None]:
    """What is learned from: the subset, altered texts of it if the recipe wants them, and the teacher's logits of all.

    ValueError for a teacher with another vocabulary.
    """
    config, recipe = _teacher_of(run), run.config.recipe
    if config is None:
        return subset, None
    tokenizer = load_tokenizer(run.start.tokenizer, recipe.positions)
    theirs = load_tokenizer(locate(config.checkpoint) / "tokenizer.json", recipe.positions)
    if tokenizer.get_vocab() != theirs.get_vocab():
        raise ValueError(
            f"the teacher {config.checkpoint} has another vocabulary than {run.config.encoder}, whose token ids would be other "
            "words to it: give --teacher one of the same tokenizer, or '' for none"
        )
    teachers = run.work / "teachers" / run.task.name
    teaching = Teaching(config, run.task, subset, run.dev, teachers, run.progress, run.device)
    logits = teacher_logits(teaching)
    if not recipe.altered or run.task.kind == "tokens":
        return subset, logits
    mask = tokenizer.token_to_id("[MASK]")
    if mask is None:
        raise ValueError(f"{run.start.tokenizer} has no [MASK], which altered texts need")
    more = altered(subset, recipe.altered_count(len(subset)), mask, recipe.positions, SUBSET_SEED)
    found = teacher_answers(teaching, more)
    labels = found.argmax(dim=1).float() if run.task.labels else found[:, 0]
    return joined(subset, more, labels), torch.cat([logits, found])


def _natural_count(run: Run, texts: int) -> int:
    """How many natural texts stages see, texts being those of the train file; none of a task that has no texts of its kind."""
    recipe = run.config.recipe
    if run.task.kind in ("tokens", "embedding"):
        return 0
    own = texts + (recipe.altered_count(texts) if _teacher_of(run) is not None else 0)
    return max(0, recipe.natural_up_to - own)


def _natural(run: Run, data: Path, count: int) -> Encoded | None:
    """Texts that only the exact student answers; the same for all seeds, as altered ones are."""
    if not count:
        return None
    train = _train_examples(run.config, run.task, data)
    found = natural_examples(_natural_sources(run, data), train, count, SUBSET_SEED)
    return encode(load_tokenizer(run.start.tokenizer, run.config.recipe.positions), found)


def _natural_sources(run: Run, data: Path) -> list[list[str]]:
    return natural_texts(data, _train_examples(run.config, run.task, data), read_split(run.task, data, "dev"))


def _train_examples(config: RunConfig, task: Task, data: Path) -> list[Example]:
    examples = read_split(task, data, "train")
    return examples[: config.train_texts] if config.train_texts else examples


def _teacher_of(run: Run) -> TeacherConfig | None:
    """A sentence encoder learns from its exact self alone."""
    return None if run.task.kind == "embedding" else run.config.teacher


def _prepare(config: RunConfig, data: Path, work: Path, progress: Progress) -> Run:
    task = task_of(data)
    recipe = config.recipe
    start = starting_point(config.encoder, config.seed, task, recipe.positions, recipe.dropout, config.teacher)
    tokenizer = load_tokenizer(start.tokenizer, recipe.positions)
    train, dev = (
        encode(tokenizer, _train_examples(config, task, data)),
        encode(tokenizer, read_split(task, data, "dev")),
    )
    directory = work / start.name / task.name / f"seed-{config.seed}"
    return Run(config, task, start, choose_device(config.device), train, dev, directory, work, progress)


def _exact_part(exact: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in exact.state_dict().items() if ".replaced." not in name}


def _stage(
    run: Run,
    stage: Stage,
    place: str,
    identity: str,
    model: Encoder,
    after: Ratios,
    exact_dev: torch.Tensor | None,
    work: Callable[[Path], None],
    prepare: Callable[[], object],
) -> dict[str, Any]:
    """Load the stage's result if it is there and of this identity; else prepare, do its timed work, measure, and keep it.

    work: given where it may keep what is not finished, under the identity's name, so that it resumes its own alone; with the
    result there is nothing unfinished any more, of no identity. `seconds` are those of the process that ended it.
    """
    directory = run.directory / place

    def load_kept() -> dict[str, Any] | None:
        kept = kept_metrics(directory / "metrics.json", identity)
        if kept is not None:
            model.load_state_dict(load_file(directory / "model.safetensors", device=str(run.device)))
            (directory / UNFINISHED.format(identity)).unlink(missing_ok=True)
        return kept

    kept = load_kept()
    if kept is not None:
        return kept
    run.may_run(place)
    with alone(directory):  # of two processes that need it, the second finds it made
        kept = load_kept()
        if kept is not None:
            return kept
        prepare()
        started = time.monotonic()
        work(directory / UNFINISHED.format(identity))
        model.eval()
        row = {
            "identity": identity,
            "step": stage.name,
            **measured(run, model, after, exact_dev),
            "seconds": round(time.monotonic() - started, 1),
        }
        keep(directory, model, row)
        for unfinished in directory.glob(UNFINISHED.format("*")):
            unfinished.unlink()
        return row
