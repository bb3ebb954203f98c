import numpy as np
import pytest

from he_runtime import plain_model
from he_runtime.engines.plain import PlainEngine
from he_runtime.errors import PlanError
from he_runtime.execution import encode_constants, run
from he_runtime.folding import fold
from he_runtime.lowering.layout import Layout
from he_runtime.lowering.token_shifts import TokenShiftLowering, levels_needed
from he_runtime.lowering.wide_values import levels_needed_with_wide_values
from he_runtime.network import network_of
from he_runtime.parameters import Parameters, make_parameters
from he_runtime.plan import Plan
from he_runtime.planner import LOWERINGS, plan_weights
from tests.random_models import random_text, random_weights


def tiny_plan(weights, buckets, ring_degree: int = 1024, lowering: str = "token shifts") -> Plan:
    levels = LOWERINGS[lowering][1](fold(network_of(weights)))
    parameters = make_parameters(ring_degree, levels, insecure_test=True)
    return plan_weights(
        weights, buckets, logit_range=50.0, model_digest="test", parameters=parameters, lowering=lowering
    )


def simulate(plan: Plan, bucket: int, text, *, noise: bool = False) -> np.ndarray:
    return plan.client_plan().unpack(bucket, answer_slots(plan, bucket, text, noise=noise))


def answer_slots(plan: Plan, bucket: int, text, *, noise: bool = False) -> np.ndarray:
    program, client = plan.programs[bucket], plan.client_plan()
    engine = PlainEngine(plan.parameters, keys=plan.keys, noise=noise)
    inputs = {
        name: engine.encrypt(slots, program.inputs[name].level, plan.parameters.scale)
        for name, slots in client.pack(bucket, text).items()
    }
    outputs = run(program, engine, encode_constants(program, engine), inputs)
    assert outputs["logits"].level == 0
    assert outputs["logits"].scale == pytest.approx(program.outputs["logits"].scale, rel=1e-12)
    return outputs["logits"].slots


@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "intermediate", "bucket", "tokens"),
    [
        (1, 8, 2, 16, 4, 3),
        (2, 8, 2, 16, 8, 8),
        (2, 8, 2, 16, 8, 1),
        (3, 6, 3, 20, 16, 11),  # nothing is a power of two
        (2, 8, 1, 40, 16, 16),
        (2, 8, 2, 16, 64, 50),  # more tokens than one ciphertext holds
    ],
)
def test_the_program_computes_what_the_model_computes(
    layers: int, hidden: int, heads: int, intermediate: int, bucket: int, tokens: int, softmax: str
) -> None:
    weights = random_weights(layers, hidden, heads, intermediate, softmax=softmax, classes=3)
    text = random_text(tokens, hidden)
    simulated = simulate(tiny_plan(weights, (bucket,)), bucket, text)
    np.testing.assert_allclose(simulated, plain_model.logits(weights, text), rtol=0, atol=1e-11)


@pytest.mark.parametrize("softmax", ["quadratic", "quadratic_centred", "linear"])
@pytest.mark.parametrize(
    ("layers", "hidden", "bucket", "tokens"), [(1, 8, 4, 3), (2, 8, 8, 5), (3, 6, 16, 11), (2, 8, 64, 50)]
)
def test_wide_values_compute_the_same_with_a_level_a_layer_less(
    layers: int, hidden: int, bucket: int, tokens: int, softmax: str
) -> None:
    weights = random_weights(layers, hidden, 2, 20, softmax=softmax)
    levels = levels_needed_with_wide_values(fold(network_of(weights)))
    centred = (layers - 1) * (softmax == "quadratic_centred")  # the last layer has a level to spare for its keys
    assert levels == (4 if softmax == "linear" else 5) * layers + centred + 2
    parameters = make_parameters(1024, levels, insecure_test=True)
    plan = plan_weights(
        weights, (bucket,), logit_range=50.0, model_digest="test", parameters=parameters, lowering="wide values"
    )
    text = random_text(tokens, hidden)
    np.testing.assert_allclose(simulate(plan, bucket, text), plain_model.logits(weights, text), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("bucket", "tokens"), [(4, 3), (8, 8), (64, 50)])
@pytest.mark.parametrize("lowering", ["token shifts", "wide values", "hadamard sums"])
def test_an_answer_holds_the_logits_and_nothing_else(lowering: str, bucket: int, tokens: int) -> None:
    """Partial sums in other slots would tell a client of the weights."""
    weights = random_weights(2, 8, 2, 16, classes=3)
    text = random_text(tokens, 8)
    parameters = make_parameters(1024, 15, insecure_test=True)
    plan = plan_weights(
        weights, (bucket,), logit_range=50.0, model_digest="test", parameters=parameters, lowering=lowering
    )
    slots = answer_slots(plan, bucket, text)
    logits = plain_model.logits(weights, text)
    if lowering == "hadamard sums":  # two a slot, over and over
        wanted = np.resize([logits[0] + 1j * logits[1], logits[2]], len(slots))
    else:
        layout = Layout(parameters.slots, plan.shape.width, bucket)
        wanted = np.zeros(len(slots))
        for start in range(0, len(slots), layout.period):
            wanted[start : start + 3] = logits
    np.testing.assert_allclose(slots, wanted, rtol=0, atol=1e-11)


def test_the_planner_takes_the_cheapest_and_tries_wide_values_only_for_a_smaller_ring() -> None:
    deep = plan_weights(random_weights(5, 16, 2, 64, softmax="linear"), (4,), logit_range=50.0, model_digest="test")
    shallow = plan_weights(random_weights(2, 16, 2, 64), (4,), logit_range=50.0, model_digest="test")
    for plan in (deep, shallow):
        prices = {(a.name, a.baby_steps): a.price for a in plan.alternatives if a.milliseconds}
        assert (plan.lowering, plan.chosen.baby_steps) == min(prices, key=prices.get)
        assert (("wide values", None) in prices) == (plan is deep)
        assert {("hadamard sums", 4), ("hadamard sums", 8)} <= prices.keys()
    rings = {alternative.name: alternative.ring_degree for alternative in deep.alternatives}
    assert rings == {"hadamard sums": 65536, "token shifts": 65536, "wide values": 32768}


def test_a_plan_whose_keys_are_too_large_is_not_taken_while_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(2, 32, 2, 64)
    free = plan_weights(weights, (4,), logit_range=50.0, model_digest="test")
    sizes = {(a.name, a.baby_steps): a.key_bytes for a in free.alternatives if a.milliseconds}
    assert not any(alternative.hoisted_steps for alternative in free.alternatives)
    for most in (sizes[free.lowering, free.chosen.baby_steps] - 1, 1):  # nothing is as small as 1: then the fewest
        monkeypatch.setattr("he_runtime.plan.MOST_KEY_BYTES", most)
        bound = plan_weights(weights, (4,), logit_range=50.0, model_digest="test")
        sizes = {(a.name, a.baby_steps): a.key_bytes for a in bound.alternatives if a.milliseconds}
        assert any(alternative.hoisted_steps for alternative in bound.alternatives)
        prices = {(a.name, a.baby_steps): a.price for a in bound.alternatives if a.milliseconds and a.key_bytes <= most}
        wanted = min(prices, key=prices.get) if prices else min(sizes, key=sizes.get)
        assert (bound.lowering, bound.chosen.baby_steps) == wanted


@pytest.mark.parametrize(
    ("hidden", "heads", "bucket", "ring_degree", "group", "blocks"),
    [
        (16, 2, 8, 1024, 2, 1),
        (16, 2, 64, 1024, 2, 8),
        (8, 4, 32, 512, 1, 4),  # rows are turned by odd steps
        (8, 2, 16, 512, 1, 2),
    ],
)
@pytest.mark.parametrize(("baby_steps", "hoisted_steps"), [(2, 2), (3, 3), (6, 4), (8, 8)])
def test_any_number_of_baby_and_hoisted_steps_makes_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
    hidden: int,
    heads: int,
    bucket: int,
    ring_degree: int,
    group: int,
    blocks: int,
    baby_steps: int,
    hoisted_steps: int,
) -> None:
    """Also where baby steps do not divide the width, so that the last giant step has fewer."""
    weights, text = random_weights(2, hidden, heads, 64), random_text(bucket - 1, hidden)
    options = [{"baby_steps": baby_steps, "hoisted_steps": hoisted_steps}]
    monkeypatch.setattr("he_runtime.lowering.hadamard.HadamardLowering.choices", lambda _shape: options)
    plan = tiny_plan(weights, (bucket,), ring_degree, "hadamard sums")
    layout = plan.client_plan().rows(bucket)
    assert (layout.group, layout.blocks, plan.chosen.baby_steps) == (group, blocks, baby_steps)
    products = [o for o in plan.programs[bucket].operations if o.kind == "linear_transforms" and "skew" not in o.stage]
    assert {len(o.steps) for o in products} == {baby_steps}
    rounds = {o.giant_step // baby_steps for o in products}
    assert rounds <= {2, 4}
    assert rounds == {2, 4} or (baby_steps, hidden) != (2, 16)
    np.testing.assert_allclose(simulate(plan, bucket, text), plain_model.logits(weights, text), rtol=0, atol=1e-10)


def test_one_token_a_ciphertext_is_left_to_another_lowering() -> None:
    weights, text = random_weights(2, 8, 2, 16), random_text(1, 8)
    plan = plan_weights(weights, (1,), logit_range=50.0, model_digest="test")
    assert plan.lowering == "token shifts"
    assert "attention needs two" in next(a.refusal for a in plan.alternatives if a.name == "hadamard sums")
    np.testing.assert_allclose(simulate(plan, 1, text), plain_model.logits(weights, text), rtol=0, atol=1e-10)


def test_noise_of_ckks_moves_the_logits_by_little() -> None:
    weights = random_weights(2, 8, 2, 16)
    text = random_text(6, 8)
    error = simulate(tiny_plan(weights, (8,)), 8, text, noise=True) - plain_model.logits(weights, text)
    assert 0 < np.abs(error).max() < 1e-4


def test_all_levels_are_used_and_one_less_is_refused() -> None:
    weights = random_weights(2, 8, 2, 16)
    network = fold(network_of(weights))
    levels = levels_needed(network)
    assert levels == 14
    assert levels_needed(fold(network_of(random_weights(2, 8, 2, 16, softmax="linear")))) == 12
    program = TokenShiftLowering(network, make_parameters(1024, levels, insecure_test=True), 8).program()
    assert program.outputs["logits"].level == 0
    assert max(operation.level for operation in program.operations) == levels
    last = [operation for operation in program.operations if operation.kind == "rescale"][-1]
    assert (last.level, last.target_level) == (1, 0)
    with pytest.raises(PlanError, match="needs 14 levels"):
        TokenShiftLowering(network, make_parameters(1024, levels - 1, insecure_test=True), 8).program()


def test_keys_are_planned_at_the_level_of_their_use() -> None:
    plan = tiny_plan(random_weights(2, 8, 2, 16), (4, 8))
    for program in plan.programs.values():
        engine = PlainEngine(plan.parameters, keys=program.keys)
        inputs = {name: engine.encrypt(np.zeros(512), v.level, v.scale) for name, v in program.inputs.items()}
        run(program, engine, encode_constants(program, engine), inputs)  # raises KeyMissingError if one is too low
    assert min(plan.keys.values()) < max(plan.keys.values()) == plan.levels
    assert set(plan.programs[4].keys) < set(plan.keys) | {0}


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "bucket", "levels", "ring_degree", "ciphertexts", "lowering"),
    [
        (2, 128, 2, 64, 15, 32768, 1, "hadamard sums"),
        (4, 256, 4, 64, 29, 65536, 1, "hadamard sums"),
        pytest.param(6, 384, 12, 64, 38, 65536, 2, "token shifts", marks=pytest.mark.slow),
    ],
)
def test_real_shapes_are_planned_and_simulated_by_the_same_code(
    layers: int, hidden: int, heads: int, bucket: int, levels: int, ring_degree: int, ciphertexts: int, lowering: str
) -> None:
    weights = random_weights(layers, hidden, heads, 4 * hidden)
    plan = plan_weights(weights, (bucket,), logit_range=50.0, model_digest="test", lowering=lowering)
    parameters: Parameters = plan.parameters
    assert (plan.levels, parameters.ring_degree) == (levels, ring_degree)
    client = plan.client_plan()
    layout = client.rows(bucket) if lowering == "hadamard sums" else client.layout(bucket)
    assert layout.blocks == ciphertexts
    text = random_text(bucket - 7, hidden)
    np.testing.assert_allclose(simulate(plan, bucket, text), plain_model.logits(weights, text), rtol=0, atol=1e-10)
