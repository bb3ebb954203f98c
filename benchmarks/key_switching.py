"""Rotations, alone and sharing a decomposition, and relinearisation. One thread; SEAL beside where the rig has it."""

from benchmarks.report import Row, row
from benchmarks.rig import STEPS, Rig
from benchmarks.timing import taking_turns
from he_runtime.program import galois_element

PAIRS = 9


def key_switching_rows(rig: Rig, level: int, repeats: int) -> list[Row]:
    """Rotation, each of 8 sharing, ct x ct and relinearisation at level+1 primes.

    The engine has no relinearisation of its own: a sum of products is relinearised once. So a sum of 9 products less one product
    is eight times a product, and a product less that is the relinearisation.
    """
    engine, seal = rig.engine, rig.seal
    a = rig.ciphertext(level)
    pairs = [rig.ciphertext(level) for _ in range(PAIRS)]
    calls = {
        "rotation": lambda: engine.rotate(a, STEPS[:1]),
        "sharing": lambda: engine.rotate(a, STEPS),
        "one": lambda: engine.product_sum([a], pairs[:1]),
        "many": lambda: engine.product_sum([a] * PAIRS, pairs),
    }
    if seal is not None:
        b, element = rig.for_seal(a), galois_element(STEPS[0], engine.parameters)
        product = seal.product(b, b)
        calls |= {
            "seal rotation": lambda: seal.apply_galois(b, element),
            "seal product": lambda: seal.product(b, b),
            "seal relinearise": lambda: seal.relinearise(product),
        }
    seconds = taking_turns(calls, repeats)
    product_seconds = (seconds["many"] - seconds["one"]) / (PAIRS - 1)
    where = f"N={engine.parameters.ring_degree}, {level + 1} primes"
    rotation, relinearise = seconds.get("seal rotation"), seconds.get("seal relinearise")
    multiply = seconds.get("seal product")
    both = multiply + relinearise if multiply is not None and relinearise is not None else None
    return [
        row(f"rotation, {where}", seconds["rotation"], rotation),
        row(f"rotation, each of {len(STEPS)} sharing, {where}", seconds["sharing"] / len(STEPS), rotation),
        row(f"relinearise, {where}", seconds["one"] - product_seconds, relinearise),
        row(f"ct x ct, {where}", product_seconds, multiply),
        row(f"ct x ct, relinearised, {where}", seconds["one"], both),
    ]
