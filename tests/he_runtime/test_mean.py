"""Heads that read the mean over tokens: sentence encoders, and classifiers on them, by every lowering."""

import numpy as np
import pytest

from he_runtime import plain_model
from he_runtime.client_plan import ClientPlan
from he_runtime.errors import PlanError
from he_runtime.folding import PASSES
from he_runtime.network import evaluate, network_of
from he_runtime.planner import LOWERINGS
from tests.he_runtime.test_lowering import answer_slots, simulate, tiny_plan
from tests.random_models import random_text, random_weights

SHAPES = [
    # layers, hidden, heads, intermediate, bucket, tokens, classes (None: the embedding itself)
    (1, 8, 2, 16, 4, 3, None),
    (2, 8, 2, 24, 8, 8, None),
    (2, 8, 2, 16, 8, 1, 3),
    (2, 6, 3, 20, 16, 11, None),  # nothing is a power of two
    (2, 8, 2, 16, 64, 50, None),  # more tokens than one ciphertext holds
]


@pytest.mark.parametrize("count", range(len(PASSES) + 1))
def test_each_folding_pass_leaves_the_mean_unchanged(count: int) -> None:
    weights = random_weights(3, 12, 3, 20, classes=None, pooling="mean")
    text, network = random_text(7, 12), network_of(weights)
    for folding_pass in PASSES[:count]:
        network = folding_pass(network)
    np.testing.assert_allclose(evaluate(network, text), plain_model.logits(weights, text), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize(("layers", "hidden", "heads", "intermediate", "bucket", "tokens", "classes"), SHAPES)
def test_every_lowering_computes_what_the_model_computes(
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    bucket: int,
    tokens: int,
    classes: int | None,
    softmax: str,
    lowering: str,
) -> None:
    weights = random_weights(layers, hidden, heads, intermediate, softmax=softmax, classes=classes, pooling="mean")
    text = random_text(tokens, hidden)
    simulated = simulate(tiny_plan(weights, (bucket,), lowering=lowering), bucket, text)
    assert simulated.shape == (hidden if classes is None else classes,)
    np.testing.assert_allclose(simulated, plain_model.logits(weights, text), rtol=0, atol=1e-11)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_an_answer_holds_the_embedding_and_nothing_else(lowering: str) -> None:
    """Partial sums in other slots would tell a client of the weights."""
    weights, text = random_weights(2, 6, 2, 16, classes=None, pooling="mean"), random_text(5, 6)
    plan = tiny_plan(weights, (8, 16), lowering=lowering)
    client = ClientPlan.from_json(plan.client_plan().to_json(), allow_insecure_test=True)
    embedding = plain_model.logits(weights, text)
    for bucket in (8, 16):
        slots = answer_slots(plan, bucket, text)
        pattern = client.rows(bucket).row if lowering == "hadamard sums" else client.layout(bucket).period
        wanted = np.zeros((len(slots) // pattern, pattern))
        wanted[:, :6] = embedding
        np.testing.assert_allclose(slots, wanted.ravel(), rtol=0, atol=1e-11)
        np.testing.assert_allclose(client.unpack(bucket, slots), embedding, rtol=0, atol=1e-11)
        assert np.abs(client.numbers_beside(bucket, slots)).max() < 1e-11
        spoilt = slots.astype(np.complex128)
        spoilt[7] += 0.5
        assert np.abs(client.numbers_beside(bucket, spoilt)).max() == pytest.approx(0.5)


@pytest.mark.parametrize("outputs", [8, 9, 100, 256])
def test_many_outputs_go_on_in_other_rows(outputs: int) -> None:
    weights, text = random_weights(1, 8, 2, 16, classes=outputs, pooling="mean"), random_text(5, 8)
    plan = tiny_plan(weights, (8, 16), lowering="hadamard sums")
    client = plan.client_plan()
    wanted = plain_model.logits(weights, text)
    for bucket in (8, 16):
        slots = answer_slots(plan, bucket, text)
        np.testing.assert_allclose(client.unpack(bucket, slots), wanted, rtol=0, atol=1e-11)
        assert np.abs(client.numbers_beside(bucket, slots)).max() < 1e-11


def test_more_outputs_than_places_are_refused() -> None:
    weights = random_weights(1, 8, 2, 16, classes=500, pooling="mean")
    for lowering, reason in (
        ("hadamard sums", "500 outputs; an answer for"),
        ("token shifts", "500 outputs; a row of 8"),
    ):
        with pytest.raises(PlanError, match=reason):
            tiny_plan(weights, (8,), lowering=lowering)
