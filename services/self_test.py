"""A tiny program that uses every evaluation key once, so that a client finds a wrong or damaged key before it believes an answer.

On the random vector x: the sum of all planned rotations (and the conjugate), each taken at the highest level of its key so
that every digit and every row of the key takes part; and the square, by the relinearisation key.
"""

import secrets
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.numba_engine import NumbaCiphertext, NumbaEngine
from he_runtime.parameters import Parameters
from he_runtime.program import RELINEARISATION, conjugation_element


def self_test(
    engine: NumbaEngine, keys: Mapping[int, int], x: NumbaCiphertext
) -> tuple[NumbaCiphertext | None, NumbaCiphertext | None]:
    """(sum of rotations, square), both at level 0; None for what no key is planned for. x is at the highest level of the keys."""
    steps = steps_of(keys, engine.parameters)
    conjugation = conjugation_element(engine.parameters)
    total = square = None
    for element, level in sorted(keys.items()):
        source = engine.drop(x, level)
        if element == RELINEARISATION:
            square = engine.drop(engine.rescale(engine.product_sum([source], [source])), 0)
            continue
        turned = engine.conjugate(source) if element == conjugation else engine.rotate(source, [steps[element]])[0]
        turned = engine.drop(turned, 0)
        total = turned if total is None else engine.add(total, turned)
    return total, square


def steps_of(keys: Mapping[int, int], parameters: Parameters) -> dict[int, int]:
    """Galois element -> rotation to the left. Elements that are no rotation (relinearisation, the conjugate) are left out."""
    wanted, found = set(keys), {}
    element = 1
    for step in range(parameters.slots):
        if element in wanted and step:
            found[element] = step
        element = element * 3 % (2 * parameters.ring_degree)
    return found


def expected(
    keys: Mapping[int, int], parameters: Parameters, x: NDArray[np.complex128]
) -> tuple[NDArray[np.complex128] | None, NDArray[np.complex128] | None]:
    """What `self_test` computes, on numbers: complex128 [slots] each."""
    steps, conjugation = steps_of(keys, parameters), conjugation_element(parameters)
    turned = [np.conj(x) if element == conjugation else np.roll(x, -steps[element]) for element in keys if element]
    return (sum(turned[1:], turned[0]) if turned else None), (x * x if RELINEARISATION in keys else None)


def random_vector(keys: Mapping[int, int], parameters: Parameters) -> NDArray[np.complex128]:
    """A vector for the test, complex128 [slots], from the operating system's randomness; so small that no sum overflows."""
    generator = np.random.default_rng(secrets.randbits(128))
    parts = generator.uniform(-1, 1, (2, parameters.slots)) * min(1.0, 32.0 / len(keys))
    return np.asarray(parts[0] + 1j * parts[1], np.complex128)
