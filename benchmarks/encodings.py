"""Encoding, the expansion of seeds, and loading a key: what is done once, or once a query. One thread."""

from benchmarks.products import PERIOD
from benchmarks.report import Row, row
from benchmarks.rig import Rig
from benchmarks.timing import taking_turns
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.program import RELINEARISATION


def encoding_rows(rig: Rig, level: int, repeats: int) -> list[Row]:
    """Encoding of a full and of a periodic vector at level+1 primes; SEAL encodes both written out, through its binding."""
    engine, seal, scale = rig.engine, rig.seal, rig.scale
    calls = {
        "full": lambda: engine.encode(rig.slots, level, scale),
        "periodic": lambda: engine.encode(rig.slots[:PERIOD], level, scale),
    }
    if seal is not None:
        calls["seal"] = lambda: seal.encode(rig.slots, level, scale)
    seconds = taking_turns(calls, repeats)
    where = f"N={engine.parameters.ring_degree}, {level + 1} primes"
    return [
        row(f"encode, {where}", seconds["full"], seconds.get("seal")),
        row(f"encode, period {PERIOD}, {where}", seconds["periodic"], seconds.get("seal")),
    ]


def key_rows(rig: Rig, repeats: int) -> list[Row]:
    """Seed expansion at all primes, as a digit of a key needs it, and loading one whole key."""
    parameters = rig.engine.parameters
    (key,) = make_evaluation_keys(rig.client, rig.secret, {RELINEARISATION: parameters.maximum_level})
    engine = rig.engine.without_keys()
    seed, primes, degree = key.digits[0][0], parameters.all_primes, parameters.ring_degree
    seconds = taking_turns(
        {
            "seed": lambda: expand_uniform(seed, primes, degree),
            "load": lambda: engine.load_key(key.galois_element, key.level, key.digits),
        },
        repeats,
    )
    return [
        row(f"seed expansion, {len(primes)} rows, N={degree}", seconds["seed"]),
        row(f"load one key, {len(key.digits)} digits of {len(primes)} rows, N={degree}", seconds["load"]),
    ]
