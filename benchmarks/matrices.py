"""A matrix product by baby and giant steps: what a query spends most of its time on. One thread."""

import numpy as np

from benchmarks.products import PERIOD
from benchmarks.report import Row, row
from benchmarks.rig import STEPS, Rig
from benchmarks.timing import taking_turns
from he_runtime.program import galois_element

BABY_STEPS = (0, *STEPS[:-1])
GIANT_STEP = STEPS[-1]
GIANTS = 8


def matrix_rows(rig: Rig, level: int, repeats: int) -> list[Row]:
    """64 diagonals, 8 baby and 8 giant steps, rescaled, at level+1 primes.

    SEAL's time is put together from its own: 64 products and their sum, 14 rotations, one rescale.
    """
    engine, seal, scale, slots = rig.engine, rig.seal, rig.scale, rig.engine.parameters.slots
    a = rig.ciphertext(level)
    values = np.random.default_rng(2).normal(size=(GIANTS, len(BABY_STEPS), min(PERIOD, slots)))
    table = engine.encode_table(values, level, scale)
    calls = {"matrix": lambda: engine.linear_transforms([a], [[table]], BABY_STEPS, GIANT_STEP)}
    if seal is not None:
        b, element = rig.for_seal(a), galois_element(STEPS[0], engine.parameters)
        weights = [seal.encode(np.resize(v, slots), level, scale) for v in values.reshape(-1, values.shape[-1])]
        calls |= {
            "seal rotation": lambda: seal.apply_galois(b, element),
            "seal sum": lambda: seal.sum_of_plain_products([b] * len(weights), weights),
            "seal rescale": lambda: seal.rescale(b, scale),
        }
    seconds = taking_turns(calls, repeats)
    theirs = None
    if seal is not None:
        rotations = len(BABY_STEPS) - 1 + GIANTS - 1
        theirs = rotations * seconds["seal rotation"] + seconds["seal sum"] + seconds["seal rescale"]
    name = f"matrix of {GIANTS * len(BABY_STEPS)} diagonals of period {PERIOD}, N={engine.parameters.ring_degree}"
    return [row(f"{name}, {level + 1} primes", seconds["matrix"], theirs)]
