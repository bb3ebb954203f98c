import json

import numpy as np
import pytest

from he_runtime.client_plan import ClientPlan
from he_runtime.errors import ParameterError, PlanError, RangeError
from he_runtime.folding import fold
from he_runtime.network import network_of
from he_runtime.parameters import LARGEST_RESULT, ChainShape, make_parameters
from he_runtime.planner import LOWERINGS, plan_weights
from tests.he_runtime.test_lowering import tiny_plan
from tests.random_models import random_text, random_weights


def test_the_client_plan_survives_json() -> None:
    plan = tiny_plan(random_weights(1, 8, 2, 16), (4, 8)).client_plan()
    value = json.loads(json.dumps(plan.to_json()))
    assert ClientPlan.from_json(value, allow_insecure_test=True) == plan
    with pytest.raises(ParameterError, match="insecure_test"):
        ClientPlan.from_json(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "other"),
        (("program_digest",), "../../etc"),
        (("program_digest",), "A" * 64),
        (("keys",), {"5": 99}),
        (("keys",), {"6": 1}),
        (("keys",), [1]),
        (("buckets",), {}),
        (("packing", "width"), -1),
        (("parameters", "ring_degree"), 3),
        (("logit_range",), "many"),
        (("outputs",), 0),
        (("outputs",), 10**9),
    ],
)
def test_a_plan_that_this_client_would_not_compute_with_is_refused(path, value) -> None:
    plan = json.loads(json.dumps(tiny_plan(random_weights(1, 8, 2, 16), (4,)).client_plan().to_json()))
    target = plan
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(ParameterError):
        ClientPlan.from_json(plan, allow_insecure_test=True)


def test_digests_tell_models_and_parameters_apart() -> None:
    weights = random_weights(1, 8, 2, 16)
    one, other = tiny_plan(weights, (4,)), tiny_plan(weights, (8,))
    assert one.digest != other.digest
    assert one.digest == tiny_plan(weights, (4,)).digest
    assert one.digest != tiny_plan(weights, (4,), ring_degree=2048).digest


def test_an_answer_out_of_range_is_no_answer() -> None:
    client = tiny_plan(random_weights(1, 8, 2, 16), (4,)).client_plan()
    slots = np.zeros(client.parameters.slots)
    slots[:2] = [-49, 3]
    np.testing.assert_array_equal(client.unpack(4, slots), [-49, 3])
    for wrong in (51.0, -1e9, np.nan, np.inf):
        slots[1] = wrong
        with pytest.raises(RangeError, match="outside the calibrated range"):
            client.unpack(4, slots)


@pytest.mark.parametrize("logit_range", [LARGEST_RESULT * 1.01, 1e12, float("inf"), float("nan"), 0.0])
def test_a_range_wider_than_an_answer_is_refused(logit_range: float) -> None:
    """A value that wraps around the modulus comes out within an answer's width: such a range would never tell."""
    with pytest.raises(PlanError, match="an answer holds ±181"):
        plan_weights(random_weights(1, 8, 2, 16), (4,), logit_range=logit_range, model_digest="test")


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("scale_bits", [36, 30])
def test_answers_of_every_lowering_have_the_scale_that_holds_the_largest_result(
    lowering: str, pooling: str, scale_bits: int
) -> None:
    """With twice the scale half of an allowed range would wrap around, and come out as another number in range."""
    weights = random_weights(1, 8, 2, 16, pooling=pooling, classes=3 if pooling == "first" else None)
    levels = LOWERINGS[lowering][1](fold(network_of(weights)))
    shape = ChainShape(scale_bits, digit_size=2)
    parameters = make_parameters(1024, levels, insecure_test=True, shape=shape)
    plan = plan_weights(
        weights, (4,), logit_range=LARGEST_RESULT, model_digest="test", parameters=parameters, lowering=lowering
    )
    assert plan.client_plan().output_scale == pytest.approx(parameters.answer_scale, rel=1e-12)


def test_buckets_hold_their_texts() -> None:
    client = tiny_plan(random_weights(1, 8, 2, 16), (4, 16)).client_plan()
    assert [client.bucket_for(tokens) for tokens in (1, 4, 5, 16)] == [4, 4, 16, 16]
    with pytest.raises(ValueError, match="at most 16"):
        client.bucket_for(17)
    packed = client.pack(4, random_text(3, 8))
    assert packed.keys() == {"embeddings.0", "mask.0"}
    mask = packed["mask.0"].reshape(-1, 4, 2, client.packing.width)
    np.testing.assert_allclose(mask[:, :3, 0], 1 / 3)
    assert not mask[:, 3].any()
    assert not mask[:, :, 1].any()
