"""Products with plaintexts, and rescaling. One thread; SEAL beside where the rig has it."""

import numpy as np

from benchmarks.report import Row, row
from benchmarks.rig import Rig
from benchmarks.timing import taking_turns

TERMS = 64
PERIOD = 256  # of the diagonals of a matrix for 128 features
DISTINCT = 16  # ciphertexts of a sum: more than any cache holds, few enough for a small machine


def product_rows(rig: Rig, level: int, repeats: int) -> list[Row]:
    """ct x pt, a sum of 64 of them with periodic plaintexts, and rescale at level+1 primes.

    SEAL has no periodic plaintexts: it multiplies the same values written out.
    """
    engine, seal, scale, slots = rig.engine, rig.seal, rig.scale, rig.engine.parameters.slots
    periodic = np.random.default_rng(1).normal(size=(TERMS, min(PERIOD, slots)))
    ciphertexts = [rig.ciphertext(level) for _ in range(DISTINCT)] * (TERMS // DISTINCT)
    a = ciphertexts[0]
    full = engine.encode(rig.slots, level, scale)
    weights = [engine.encode(values, level, scale) for values in periodic]
    calls = {
        "plain": lambda: engine.weighted_sum([a], [full]),
        "sum": lambda: engine.weighted_sum(ciphertexts, weights),
        "rescale": lambda: engine.rescale(a),
    }
    if seal is not None:
        b, seal_full = rig.for_seal(a), seal.encode(rig.slots, level, scale)
        seal_ciphertexts = [rig.for_seal(c) for c in ciphertexts[:DISTINCT]] * (TERMS // DISTINCT)
        seal_weights = [seal.encode(np.resize(values, slots), level, scale) for values in periodic]
        calls |= {
            "seal plain": lambda: seal.multiply_plain(b, seal_full),
            "seal sum": lambda: seal.sum_of_plain_products(seal_ciphertexts, seal_weights),
            "seal rescale": lambda: seal.rescale(b, scale),
        }
    seconds = taking_turns(calls, repeats)
    where = f"N={engine.parameters.ring_degree}, {level + 1} primes"
    return [
        row(f"ct x pt, {where}", seconds["plain"], seconds.get("seal plain")),
        row(f"sum of {TERMS} ct x pt of period {PERIOD}, {where}", seconds["sum"], seconds.get("seal sum")),
        row(f"rescale, {where}", seconds["rescale"], seconds.get("seal rescale")),
    ]
