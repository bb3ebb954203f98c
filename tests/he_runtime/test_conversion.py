"""Conversions from some primes to others against Python integers, for every shape of chain that a planner may choose."""

import numpy as np
import pytest

from he_runtime.engines.numba_tables import Conversion, level_tables
from he_runtime.kernels.arithmetic import anchor_for
from he_runtime.kernels.division import BLOCK, convert_rows
from he_runtime.parameters import SHAPES, ChainShape, make_parameters

ENTRIES = 64


def converted(sources: np.ndarray, conversion: Conversion) -> np.ndarray:
    out = np.full((len(conversion.weights), sources.shape[1]), np.nan)
    blocks = -(-sources.shape[1] // BLOCK)
    convert_rows(sources, conversion.weights, conversion.moduli, conversion.halved, 0, blocks, 0, 0, out)
    return out


def anchored(conversion: Conversion, primes: tuple[int, ...]) -> Conversion:
    """The same without halves of weights."""
    weights = np.stack([conversion.whole, np.zeros_like(conversion.whole)], axis=1)
    moduli = conversion.moduli.copy()
    moduli[:, 2] = [anchor_for(sum(primes) * q / 2) for q in moduli[:, 0]]
    return Conversion(weights, moduli, np.zeros_like(conversion.halved))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.scale_bits}-{shape.digit_size}")
def test_every_conversion_of_a_chain_is_exact(shape: ChainShape) -> None:
    """Special primes are larger than the chain's: sums of their values need more room than those of one prime's."""
    parameters = make_parameters(2048, 2 * shape.digit_size, insecure_test=True, shape=shape)
    generator = np.random.default_rng(shape.digit_size)
    conversions = []
    for level in {parameters.maximum_level, parameters.maximum_level - 1}:  # the last digit whole, and short of a prime
        tables = level_tables(parameters, level)
        digits = zip(parameters.digits(level), tables.conversion, strict=True)
        conversions += [(tuple(digit), conversion, tables.rows) for digit, conversion in digits]
        both = (*parameters.special_primes, parameters.primes[level])
        assert tables.special_and_rescale is not None
        for dropped, division, kept in (
            (parameters.special_primes, tables.special, level + 1),
            (both, tables.special_and_rescale, level),
        ):
            conversions.append(
                ((*dropped, len(dropped) + 1), division.down, np.arange(kept))
            )  # the last is the quotient
    for primes, conversion, rows in conversions:
        bounds = np.array(primes)[:, None] - 1
        sources = generator.integers(-bounds, bounds, (len(primes), ENTRIES), endpoint=True)
        sources[:, :8] = np.sign(sources[:, :8]) * bounds  # the largest there are
        sources[:, 8] = bounds[:, 0] * np.sign(conversion.whole[0])  # all of one sign
        for kind in (
            conversion,
            anchored(conversion, primes),
        ):  # by halves of weights where they are exact, and without
            out = converted(sources.astype(np.float64), kind)
            for t, row in enumerate(rows):
                q = parameters.all_primes[row]
                weights = [int(w) for w in conversion.whole[t]]
                for i in range(ENTRIES):
                    wanted = sum(int(x) * w for x, w in zip(sources[:, i], weights, strict=True))
                    assert out[t, i] == int(out[t, i])
                    assert abs(out[t, i]) <= q / 2
                    assert (int(out[t, i]) - wanted) % q == 0
    assert any(conversion.halved.any() for _, conversion, _ in conversions)
