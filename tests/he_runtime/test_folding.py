from dataclasses import astuple, replace

import numpy as np
import pytest

from he_runtime import plain_model
from he_runtime.errors import PlanError
from he_runtime.folding import PASSES, complete_activation_square, complete_attention_square, fold
from he_runtime.network import evaluate, network_of
from tests.random_models import random_text, random_weights


@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize("count", range(len(PASSES) + 1))
def test_each_pass_leaves_the_outputs_unchanged(count: int, softmax: str) -> None:
    weights = random_weights(3, 12, 3, 20, softmax=softmax, classes=3)
    text = random_text(7, 12)
    network = network_of(weights)
    for folding_pass in PASSES[:count]:
        network = folding_pass(network)
    np.testing.assert_allclose(evaluate(network, text), plain_model.logits(weights, text), rtol=0, atol=1e-12)


def fingerprint(network) -> str:
    with np.printoptions(threshold=100_000):
        return repr(astuple(network))


@pytest.mark.parametrize("folding_pass", PASSES)
def test_each_pass_changes_something(folding_pass) -> None:
    network = network_of(random_weights(3, 8, 2, 12))
    for earlier in PASSES[: PASSES.index(folding_pass)]:
        network = earlier(network)
    assert fingerprint(folding_pass(network)) != fingerprint(network)


def test_folding_leaves_only_squares_and_matrices() -> None:
    network = fold(network_of(random_weights(3, 8, 2, 12)))
    assert network.pooler is None
    for layer in network.layers:
        assert layer.norm is None
        assert layer.output_norm is None
        assert layer.score_scale == 1
        assert (layer.attention[:, 0] == 1).all()
        assert (layer.attention[:, 1] == 0).all()
        assert (layer.activation == [1, 0, 0]).all()


def test_what_cannot_be_folded_is_refused() -> None:
    weights = random_weights(1, 8, 2, 12)
    network = network_of(weights)
    mixed = network.layers[0].attention.copy()
    mixed[0, 0] = 0
    with pytest.raises(PlanError, match="mixes heads"):
        complete_attention_square(replace(network, layers=(replace(network.layers[0], attention=mixed),)))
    flat = network.layers[0].activation.copy()
    flat[3, 0] = 0
    with pytest.raises(PlanError, match="no quadratic term"):
        complete_activation_square(replace(network, layers=(replace(network.layers[0], activation=flat),)))
