"""A tiny program that uses every evaluation key once, so that a client finds a wrong or damaged key before it believes an answer.

On the random vector x: the sum of all planned rotations (and the conjugate), each taken at the highest level of its key so
that every digit and every row of the key takes part; and the square, by the relinearisation key.
"""

from collections.abc import Mapping

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
