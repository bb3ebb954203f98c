"""Noise of every operation, from the parameters: what tests of engines hold errors against.

A polynomial e of N independent coefficients of variance v has |e|² = N·v on average in every slot: slot j is the value at
root^(3^j), N coefficients times roots of unity, so close to a complex normal variable. Errors are of values, so every variance
here is divided by the scale squared. A product of two such polynomials (an error and a secret) has the product of their
variances, and longer tails.

Functions return the variance E|error|² of one slot. `band` says how far the mean of measured squares may lie from it, `reach`
how far the largest error of many slots may; both are passed by chance less than once in a million runs.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from he_runtime.parameters import Parameters

SEAL_ERROR_VARIANCE = 21 / 2  # centred binomial of 42 bits: deviation 3.24, SEAL's stand-in for a Gaussian of 3.2
UNIFORM_VARIANCE = 1 / 12  # rounding to an integer; a value modulo q over q
TERNARY_VARIANCE = 2 / 3  # a uniform coefficient of -1, 0, 1

DEVIATIONS = 5  # one in 1.7 million for a normal variable
CHANCE = 1e-9  # that any slot at all passes `reach`


def fresh(parameters: Parameters, scale: float) -> float:
    """A symmetric encryption: SEAL's error and the rounding of the encoding, in c0."""
    return parameters.ring_degree * (SEAL_ERROR_VARIANCE + UNIFORM_VARIANCE) / scale**2


def encoding(period: int, scale: float) -> float:
    """Rounding of a plaintext of that period: a polynomial of 2·period coefficients."""
    return 2 * period * UNIFORM_VARIANCE / scale**2


def rounding(parameters: Parameters, scale: float) -> float:
    """A division with rounding (by the last prime, by P, or by both at once); `scale`: the one after it.

    Both parts are rounded: t0 + t1·s, t uniform in [-1/2, 1/2] and s ternary, whose product sums N terms.
    """
    n = parameters.ring_degree
    return n * UNIFORM_VARIANCE * (1 + n * TERNARY_VARIANCE) / scale**2


def key_errors(parameters: Parameters, level: int, scale: float, variances: Sequence[float] | None = None) -> float:
    """What the errors of an evaluation key add: sum over digits of digit·error, over P.

    A digit of k primes with product Q is lifted as a sum of k terms, each uniform in Q·[-1/2, 1/2]: variance k·Q²/12 (hybrid key
    switching: Han and Ki 2020). Below the rounding by design, as P exceeds the digits. variances: of each digit's error,
    SEAL's by default.
    """
    n, special = parameters.ring_degree, math.prod(parameters.special_primes)
    digits = parameters.digits(level)
    each = variances or [SEAL_ERROR_VARIANCE] * len(digits)
    total = sum(
        len(digit) * UNIFORM_VARIANCE * (math.prod(digit) / special) ** 2 * variance
        for digit, variance in zip(digits, each, strict=True)
    )
    return n * n * total / scale**2


def key_switching(parameters: Parameters, level: int, scale: float, variances: Sequence[float] | None = None) -> float:
    """A rotation, a conjugation or a relinearisation: the key's errors, and the rounding of the division by P."""
    return key_errors(parameters, level, scale, variances) + rounding(parameters, scale)


def band(parameters: Parameters, samples: int, *, with_secret: bool) -> float:
    """Relative distance from the variance that the mean square of so many independent slots may have.

    The square of a complex normal variable has a relative deviation of 1, of a product of two of them sqrt(3). The secret is the
    same for all samples: its share of non-zero coefficients deviates by 1/sqrt(2N).
    """
    if not with_secret:
        return DEVIATIONS / math.sqrt(samples)
    return DEVIATIONS * (math.sqrt(3 / samples) + 1 / math.sqrt(2 * parameters.ring_degree))


def reach(slots: int, *, with_secret: bool) -> float:
    """How many deviations the largest of so many errors stays below.

    |x| of a complex normal variable passes r with probability exp(-r²), of a product of two with about sqrt(pi·r)·exp(-2r).
    """
    likely = math.log(slots / CHANCE)
    return (likely + math.log(likely)) / 2 if with_secret else math.sqrt(likely)


def engine_tolerance(parameters: Parameters) -> float:
    """Ten deviations of fresh noise, a key switch and a rescale together, at the standard scale, for values of size one."""
    scale = parameters.scale
    return 10 * (math.sqrt(fresh(parameters, scale)) + math.sqrt(rounding(parameters, scale)))


def seal_engine_tolerance(parameters: Parameters) -> float:
    """The same for SEAL as an engine, whose key switching is worse.

    SEAL has digits of one prime, not centred, and a P no larger than the first of them, so the errors of its keys show: the
    digits' mean of q/2 times sum_i root^i, which is about 2N/pi at the slots whose root is near one.
    """
    n, digits = parameters.ring_degree, parameters.maximum_level + 1
    mean = 10 * math.sqrt(SEAL_ERROR_VARIANCE * n * digits) * n / math.pi
    return engine_tolerance(parameters) + mean / parameters.scale


def worst_inputs(slots: int, largest: float) -> dict[str, NDArray[np.complex128]]:
    """Inputs that random ones never are, none above `largest`; and one that is random."""
    random = np.random.default_rng(slots)
    inputs = {
        "largest everywhere": np.full(slots, largest),
        "alternating signs": np.resize([largest, -largest], slots),
        "one spike": largest * np.eye(1, slots, slots // 3)[0],
        "zero": np.zeros(slots),
        "largest and complex": largest * np.exp(1j * np.arange(slots)),
        "random": random.uniform(-largest, largest, slots) / math.sqrt(2) * (1 + 1j),
    }
    return {name: values.astype(np.complex128) for name, values in inputs.items()}
