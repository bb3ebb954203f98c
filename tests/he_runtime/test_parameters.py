import json
import math

import pytest

from he_runtime.errors import ParameterError
from he_runtime.parameters import (
    COARSE_DIGIT_SIZES,
    COARSE_SCALES_BITS,
    KEY_SWITCH_MARGIN_BITS,
    LARGEST_RESULT,
    MAXIMUM_MODULUS_BITS_128,
    RING_DEGREES,
    SCALE_BIT_PRICE,
    SCALES_BITS,
    SHAPES,
    ChainShape,
    Parameters,
    cheapest_chain,
    levels_offered,
    make_parameters,
    smallest_parameters,
)
from he_runtime.primes import is_prime, primes_below, primes_nearest


@pytest.mark.parametrize("ring_degree", RING_DEGREES)
def test_the_longest_chain_is_within_the_table_and_one_prime_more_is_not(ring_degree: int) -> None:
    levels = levels_offered(ring_degree)
    parameters = make_parameters(ring_degree, levels)
    assert parameters.modulus_bits <= MAXIMUM_MODULUS_BITS_128[ring_degree]
    with pytest.raises(ParameterError, match="at 128 bits"):
        make_parameters(ring_degree, levels + 1)


def test_868_bits_are_accepted_at_32768_and_869_are_refused() -> None:
    # Built from exact bit lengths: 18 scale primes and 4 large ones leave room for one prime of 40 bits.
    first, *special = primes_below(45, 32768, 4)
    primes = (first, *primes_nearest(36, 32768, 18))
    for last_bits, accepted in ((40, True), (41, False)):
        chain = (*primes, *primes_below(last_bits, 32768, 1))
        if accepted:
            assert 867 < Parameters(32768, chain, tuple(special), 3, 36).modulus_bits <= 868
        else:
            with pytest.raises(ParameterError, match="allows 868"):
                Parameters(32768, chain, tuple(special), 3, 36)


def test_seals_looser_limit_is_refused() -> None:
    # [60]+[40]*19+[60] = 880 bits passes SEAL's table of 881; ours bounds it by 868 (and primes by 46 bits).
    large = primes_below(46, 32768, 19)
    with pytest.raises(ParameterError, match="allows 868"):
        Parameters(32768, large[:16], large[16:], 2, 36)


def test_refusals_name_what_was_needed_and_what_was_offered() -> None:
    parameters, refusals = smallest_parameters(14, 256)
    assert parameters.ring_degree == 32768
    assert "needs 14 levels, N=16384 offers 9" in refusals[-1]
    with pytest.raises(ParameterError, match="needs 60 levels, N=65536 offers 48"):
        smallest_parameters(60, 256)
    with pytest.raises(ParameterError, match="needs 65536 slots"):
        smallest_parameters(2, 65536)


def test_json_round_trip_and_insecure_sets_are_for_tests_only() -> None:
    parameters = make_parameters(1024, 3, insecure_test=True)
    value = json.loads(json.dumps(parameters.to_json()))
    assert Parameters.from_json(value, allow_insecure_test=True) == parameters
    with pytest.raises(ParameterError, match="insecure_test"):
        Parameters.from_json(value)
    with pytest.raises(ParameterError):
        make_parameters(1024, 3)
    with pytest.raises(ParameterError, match="not a parameter set"):
        Parameters.from_json({"ring_degree": "1024"})


def test_special_primes_exceed_every_digit() -> None:
    good = make_parameters(2048, 5, insecure_test=True)
    with pytest.raises(ParameterError, match="largest digit"):
        Parameters(2048, good.primes, good.special_primes[:1], 2, 36, insecure_test=True)


def test_primes_admit_a_transform() -> None:
    for prime in (*primes_nearest(36, 4096, 8), *primes_below(45, 4096, 3)):
        assert is_prime(prime)
        assert prime % 8192 == 1
    assert not is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5, 7
    nearest = primes_nearest(36, 4096, 8)
    assert max(abs(prime / 2**36 - 1) for prime in nearest) < 2**-16


@pytest.mark.parametrize("scales_bits", [SCALES_BITS, COARSE_SCALES_BITS])
@pytest.mark.parametrize("levels", range(1, 23))
def test_the_chosen_chain_has_the_smallest_keys_that_fit(levels: int, scales_bits: tuple[int, ...]) -> None:
    bound = MAXIMUM_MODULUS_BITS_128[32768]
    chosen = cheapest_chain(32768, levels, scales_bits)
    # Scale primes lie on both sides of their power of two.
    made = make_parameters(32768, levels, shape=chosen)
    assert made.modulus_bits <= chosen.modulus_bits(levels) + 1e-3 <= bound + 1e-3
    for shape in SHAPES:
        if shape.scale_bits in scales_bits and shape.modulus_bits(levels) <= bound:
            gained_bits = chosen.scale_bits - shape.scale_bits
            assert chosen.key_rows(levels) <= shape.key_rows(levels) * SCALE_BIT_PRICE**gained_bits * (1 + 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_special_primes_are_as_large_as_the_digits_need_and_no_larger(shape: ChainShape) -> None:
    levels = max(COARSE_DIGIT_SIZES)  # so that the largest digit is a whole one
    parameters = make_parameters(2048, levels, insecure_test=True, shape=shape)
    largest = max(math.log2(math.prod(digit)) for digit in parameters.digits(levels))
    special = math.log2(math.prod(parameters.special_primes))
    assert largest + KEY_SWITCH_MARGIN_BITS - 0.5 <= special <= largest + KEY_SWITCH_MARGIN_BITS + 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_has_no_coarse_scale_and_holds_the_largest_result(shape: ChainShape) -> None:
    parameters = make_parameters(2048, 1, insecure_test=True, shape=shape)
    assert parameters.answer_scale == max(parameters.scale, 2.0 ** min(SCALES_BITS))
    # All but what the largest prime of so many bits lies below their power of two.
    assert 2 * math.sqrt(2) * LARGEST_RESULT * parameters.answer_scale == pytest.approx(
        parameters.primes[0], rel=2**-16
    )


def test_moduli_that_are_no_primes_and_sizes_that_make_no_sense_are_refused() -> None:
    good = make_parameters(8192, 2).to_json()
    primes = good["primes"]
    composite = next(n for n in range(2**36 + 1, 2**37, 2 * 8192) if not is_prime(n))
    for change in (
        {"primes": [primes[0], composite, *primes[2:]]},
        {"primes": [1, *primes[1:]]},
        {"primes": []},
        {"scale_bits": 5000},
        {"scale_bits": 0},
        {"digit_size": 0},
    ):
        with pytest.raises(ParameterError):
            Parameters.from_json({**good, **change})
