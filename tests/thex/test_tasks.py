"""Every layout, on files made here: GLUE's columns as its own files have them, and CoNLL's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from thex.data import encode
from thex.distillation import label_loss, logit_loss
from thex.metrics import UNLABELLED, agreement, entities, score
from thex.tasks import TASKS, Task, find_task, read_split, task_of

MNLI_COLUMNS = [*(f"column{number}" for number in range(8)), "sentence1", "sentence2"]
FILES = {
    "SST-2": ("train", ["sentence\tlabel", 'a "fine" film \t1']),
    "CoLA": ("train", ["gj04\t0\t*\tFilms a fine."]),
    "RTE": ("train", ["index\tsentence1\tsentence2\tlabel", "0\tA film.\tA text.\tnot_entailment"]),
    "STS-B": (
        "train",
        [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
            "0\tg\tf\t2012\t1\tn\tn\tA film.\tA text.\t3.800",
        ],
    ),
    "MRPC": ("train", ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\tA film.\tA text."]),
    "QNLI": ("train", ["index\tquestion\tsentence\tlabel", "0\tA film?\tA text.\tentailment"]),
    "QQP": (
        "train",
        ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "cut by a line break", "1\t1\t2\tA film?\tA text?\t1"],
    ),
    "MNLI": (
        "train",
        [
            "\t".join([*MNLI_COLUMNS, "label1", "gold_label"]),
            "\t".join([*"01234567", "A film.", "A text.", "neutral", "neutral"]),
        ],
    ),
}


def write(directory: Path, split: str, lines: list[str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("name", "label"),
    [("SST-2", 1), ("CoLA", 0), ("RTE", 1), ("STS-B", 3.8), ("MRPC", 1), ("QNLI", 0), ("QQP", 1), ("MNLI", 2)],
)
def test_each_glue_file_gives_its_texts_and_label(tmp_path: Path, name: str, label: float) -> None:
    split, lines = FILES[name]
    directory = write(tmp_path / name, split, lines)
    task = task_of(directory)
    (example,) = read_split(task, directory, split)
    assert task.name == name
    assert example.label == label
    assert (example.second is not None) == task.pair == (name not in ("SST-2", "CoLA"))
    assert "film" in example.first.lower()
    assert example.second is None or "text" in example.second


def test_mnli_is_scored_on_either_dev_file(tmp_path: Path) -> None:
    columns = [*MNLI_COLUMNS, *(f"label{i}" for i in range(1, 6)), "gold_label"]
    for split, gold in (("dev_matched", "neutral"), ("dev_mismatched", "entailment")):
        row = [*"01234567", "A film.", "A text.", *["-"] * 5, gold]
        write(tmp_path / "MNLI", split, ["\t".join(columns), "\t".join(row)])
    for name, gold in (("MNLI", "neutral"), ("MNLI-mm", "entailment")):
        task = TASKS[name]
        assert task.labels[int(read_split(task, tmp_path / task.directory, "dev")[0].label)] == gold


def test_bad_files_are_refused_by_place(tmp_path: Path) -> None:
    sst = find_task("SST-2")
    for lines, message in (
        (["sentence\tlabel", "a film\t1\t1"], r"train.tsv:2: 3 columns, expected 2"),
        (["sentence\tlabel", "a film\tmaybe"], r"train.tsv:2: label 'maybe'"),
        (["sentence\tlabel", "a film\t2"], r"label '2', expected 0 to 1"),
        (["text\tlabel", "a film\t1"], r"has no column 'sentence'; its header is text, label"),
        (["sentence\tlabel"], "holds no examples"),
    ):
        with pytest.raises(ValueError, match=message):
            read_split(sst, write(tmp_path, "train", lines), "train")
    with pytest.raises(ValueError, match=r"unknown task 'SST'.*MNLI-mm, CoNLL"):
        find_task("SST")


CONLL = "-DOCSTART- -X- O\n\nAnna NNP B-PER\nSmith NNP I-PER\nsleeps VBZ O\n\nRome NNP B-LOC\n"


def conll(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("train", "valid"):
        (directory / f"{name}.txt").write_text(CONLL, encoding="utf-8")
    return directory


def test_conll_words_keep_their_tags_on_their_first_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    directory = conll(tmp_path)
    task = task_of(directory)
    assert (task.kind, task.labels, task.dev) == ("tokens", ("O", "B-LOC", "B-PER", "I-PER"), "valid")
    examples = read_split(task, directory, "dev")
    assert [example.words for example in examples] == [("Anna", "Smith", "sleeps"), ("Rome",)]
    pieces = {"[UNK]": 0, "An": 1, "##na": 2, "Smith": 3, "sleeps": 4, "Rome": 5}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoded = encode(tokenizer, examples)
    assert encoded.ids == [[1, 2, 3, 4], [5]]
    assert encoded.labels.tolist() == [[2, UNLABELLED, 3, 0], [1, *[UNLABELLED] * 3]]
    (directory / "valid.txt").write_text("Oslo B-ORG\n")
    with pytest.raises(ValueError, match=r"valid.txt:1: tag 'B-ORG' is not one of"):
        read_split(task, directory, "dev")


def test_entities_as_conlleval_reads_them() -> None:
    assert entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-PER"]) == {
        (0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC"), (5, 6, "PER"),
    }  # fmt: skip
    task = Task("CoNLL", "tokens", ("O", "B-PER", "I-PER"), "entity_f1")
    labels = np.array([[1, 2, 0, UNLABELLED], [0, 1, UNLABELLED, UNLABELLED]])
    guess = np.array(
        [[1, 2, 1, 1], [0, 0, 2, 2]]
    )  # one right, one invented, one missed; unlabelled places do not count
    logits = np.eye(3)[guess]
    assert score(task, logits, labels) == pytest.approx({"f1": 50.0, "precision": 50.0, "recall": 50.0})
    truth = np.eye(3)[np.maximum(labels, 0).astype(int)]
    assert agreement(task, logits, truth, labels) == pytest.approx(100 * 3 / 5)


def test_a_constant_regression_scores_nothing_and_warns_nobody() -> None:
    task = find_task("STS-B")
    assert score(task, np.ones((4, 1)), np.arange(4.0)) == {"pearson": 0.0, "spearman": 0.0}
    assert score(task, 7 - 2 * np.arange(4.0)[:, None], np.arange(4.0)) == pytest.approx(
        {"pearson": -100, "spearman": -100}
    )


def test_token_losses_count_labelled_and_real_tokens_only() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator)
    labels = torch.tensor([[1.0, UNLABELLED, 2.0, UNLABELLED], [3.0, UNLABELLED, UNLABELLED, UNLABELLED]])
    chosen = torch.stack([logits[0, 0], logits[0, 2], logits[1, 0]])
    expected = torch.nn.functional.cross_entropy(chosen, torch.tensor([1, 2, 3]))
    torch.testing.assert_close(label_loss(logits, labels), expected)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    target = logits.clone()
    target[1, 1:] += 5 * torch.randn(2, 4, generator=generator)  # padding may say anything
    assert float(logit_loss(logits, target, mask)) == pytest.approx(0, abs=1e-6)
