import json

import pytest

from he_runtime.errors import ParameterError
from he_runtime.parameters import (
    MAXIMUM_MODULUS_BITS_128,
    RING_DEGREES,
    Parameters,
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
    # 45 + 45k + ... built from exact bit lengths: 19 scale primes and 4 large ones leave room for one small prime.
    base = make_parameters(32768, 18)
    used = 3 * 45 + 45 + 18 * 36
    for last_bits, accepted in ((868 - used, True), (868 - used + 1, False)):
        last = primes_below(last_bits, 32768, 1, base.all_primes)[0]
        if accepted:
            chain = Parameters(32768, (*base.primes, last), base.special_primes, 3, 36)
            assert 867 < chain.modulus_bits <= 868
        else:
            with pytest.raises(ParameterError, match="allows 868"):
                Parameters(32768, (*base.primes, last), base.special_primes, 3, 36)


def test_seals_looser_limit_is_refused() -> None:
    # [60]+[40]*19+[60] = 880 bits passes SEAL's table of 881; ours bounds it by 868 (and primes by 46 bits).
    large = primes_below(46, 32768, 19)
    with pytest.raises(ParameterError, match="allows 868"):
        Parameters(32768, large[:16], large[16:], 2, 36)


def test_refusals_name_what_was_needed_and_what_was_offered() -> None:
    parameters, refusals = smallest_parameters(14, 256)
    assert parameters.ring_degree == 32768
    assert "needs 14 levels, N=16384 offers 8" in refusals[-1]
    with pytest.raises(ParameterError, match="needs 60 levels, N=65536 offers 44"):
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
