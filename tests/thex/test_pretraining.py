"""Distilled students: relations against their definition, an interrupted run against a whole one, transformers as reader."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.thex.test_bundle import write_task
from thex.checkpoints import load_checkpoint, save_checkpoint
from thex.config import NOTHING_REPLACED, EncoderConfig
from thex.corpus import unlabelled
from thex.pretraining import PretrainingConfig, pretrain
from thex.relations import RELATIONS, relation_loss
from thex.students import new_student

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "fine", "dull", "film", "a", "and", "moving", "stupid", "number")


def write_teacher(directory: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(directory.parent / "words.json"))
    shape = EncoderConfig(vocabulary=16, layers=3, hidden=24, heads=3, intermediate=32, positions=32)
    save_checkpoint(new_student(shape, NOTHING_REPLACED, 7), directory, directory.parent / "words.json")
    return directory


def test_relations_are_what_the_paper_says_and_vanish_for_equal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ("query", "key", "value")
    teacher = {name: torch.randn(2, 3, 8, generator=generator, dtype=torch.float64) for name in names}
    student = {name: torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for name in names}
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    for pairs in RELATIONS.values():
        expected = 0.0
        for left, right in pairs:
            for text, count in ((0, 3), (1, 2)):
                for head in range(2):
                    wanted, found = (
                        torch.softmax(
                            side[left][text, :count, head * size : (head + 1) * size]
                            @ side[right][text, :count, head * size : (head + 1) * size].T
                            / math.sqrt(size),
                            dim=1,
                        )
                        for side, size in ((teacher, 4), (student, 2))
                    )
                    expected += float((wanted * (wanted / found).log()).sum()) / (2 * 5)
        assert float(relation_loss(student, teacher, mask, 2, pairs)) == pytest.approx(expected, rel=1e-5)
        assert float(relation_loss(teacher, teacher, mask, 2, pairs)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="3 relation heads do not divide 8 features"):
        relation_loss(student, teacher, mask, 3, RELATIONS["minilmv2"])


def test_an_interrupted_distillation_ends_as_a_whole_one_and_transformers_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertModel

    teacher = write_teacher(tmp_path / "teacher")
    data = write_task(tmp_path / "SST-2").parent
    config = PretrainingConfig(
        layers=1, hidden=8, heads=2, intermediate=16, positions=32, teacher=str(teacher), relation_heads=4, shortest=2,
        epochs=3, batch=8, device="cpu", learning_rate=0.3,
    )  # fmt: skip
    monkeypatch.setattr("thex.training_state.KEEP_EVERY", 4)
    states = tmp_path / "states"
    report = pretrain(config, data, tmp_path / "whole", tmp_path / "student", states)
    assert report["texts"] == len(unlabelled(data)) == 40

    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "distil student" and done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(config, data, tmp_path / "stopped", tmp_path / "again", states, stop)
    assert not (tmp_path / "again").exists()
    pretrain(config, data, tmp_path / "stopped", tmp_path / "again", states)
    whole, again = load_checkpoint(tmp_path / "student"), load_checkpoint(tmp_path / "again")
    for name, tensor in whole.state_dict().items():
        if "classifier" not in name:  # not a part of the checkpoint
            torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    losses = [json.loads(line)["hidden"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    ids = torch.tensor([[2, 4, 5, 3]])
    with torch.no_grad():
        theirs = BertModel.from_pretrained(tmp_path / "student").eval()(input_ids=ids).pooler_output
        hidden = whole.hidden_before(1, ids, torch.ones(1, 4), torch.zeros_like(ids))
        torch.testing.assert_close(torch.tanh(whole.pooler(hidden[:, 0])), theirs, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="student with another configuration"):
        pretrain(config.model_copy(update={"seed": 1}), data, tmp_path / "whole", tmp_path / "student", states)
    with pytest.raises(ValueError, match="the student has 2 heads, the teacher 3"):
        pretrain(config.model_copy(update={"objective": "minilm"}), data, tmp_path / "v0", tmp_path / "v0s", states)
    matching = config.model_copy(update={"objective": "minilm", "heads": 3, "hidden": 12, "epochs": 1.0})
    report = pretrain(matching, data, tmp_path / "v1", tmp_path / "v1s", states)
    assert load_checkpoint(tmp_path / "v1s").config.heads == 3
    assert float(str(report["relation"])) > 0
