"""Operations of the numba engine beside SEAL's, alternating in one run, one thread each; medians."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import machine
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.engines.seal_engine import SealEngine
from he_runtime.parameters import make_parameters
from he_runtime.program import RELINEARISATION, galois_element
from he_runtime.seal import SealClient

STEPS = (5, 6, 7, 8, 9, 10, 11, 12)
Pair = tuple[str, Callable[[], Any], Callable[[], Any], int]
"""Name, our call, SEAL's call, and how many operations our call does."""


def measure(ring_degree: int = 32768, primes: tuple[int, ...] = (15, 10), repeats: int = 9) -> dict[str, object]:
    """`rows` of name, seconds, seal_seconds and ratio; and the `machine`."""
    parameters = make_parameters(ring_degree, max(primes) - 1)
    client = SealClient(parameters)
    secret = client.generate_secret_key()
    engine, seal = NumbaEngine(parameters), SealEngine(client, secret, STEPS[:1])
    engine.warm_up()
    wanted = {RELINEARISATION: parameters.maximum_level}
    wanted.update({galois_element(step, parameters): parameters.maximum_level for step in STEPS})
    for key in make_evaluation_keys(client, secret, wanted):
        engine.load_key(key.galois_element, key.level, key.digits)
    slots = np.random.default_rng(0).normal(size=parameters.slots)
    fresh = client.encrypt(secret, slots, parameters.maximum_level, parameters.scale)
    if fresh.seed is None:
        raise RuntimeError("SEAL gave an encryption without a seed")
    top = engine.from_seeded(fresh.seed, fresh.rows[0], parameters.scale)
    rows: list[dict[str, object]] = []
    for count in primes:
        for name, ours, theirs, operations in _pairs(engine, seal, top, slots, count - 1):
            seconds, seal_seconds = _alternate(ours, theirs, repeats)
            rows.append(
                {
                    "name": f"{name}, N={ring_degree}, {count} primes",
                    "seconds": seconds / operations,
                    "seal_seconds": seal_seconds,
                    "ratio": seal_seconds * operations / seconds,
                }
            )
    return {"rows": rows, "machine": machine()}


def _pairs(engine: NumbaEngine, seal: SealEngine, top: Any, slots: Any, level: int) -> list[Pair]:
    scale = engine.parameters.scale
    a = engine.drop(top, level)
    b = seal.from_rows(engine.to_rows(a), scale)
    weights, seal_weights = engine.encode(slots, level, scale), seal.encode(slots, level, scale)
    return [
        ("rotation", lambda: engine.rotate(a, STEPS[:1]), lambda: seal.rotate(b, STEPS[:1]), 1),
        ("rotation, 8 sharing", lambda: engine.rotate(a, STEPS), lambda: seal.rotate(b, STEPS[:1]), len(STEPS)),
        ("ct x ct, relinearised", lambda: engine.product_sum([a], [a]), lambda: seal.product_sum([b], [b]), 1),
        ("rescale", lambda: engine.rescale(a), lambda: seal.rescale(b), 1),
        ("ct x pt", lambda: engine.weighted_sum([a], [weights]), lambda: seal.weighted_sum([b], [seal_weights]), 1),
        ("encode", lambda: engine.encode(slots, level, scale), lambda: seal.encode(slots, level, scale), 1),
    ]


def _alternate(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float]:
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, collected in zip((first, second), times, strict=True):
            started = time.thread_time()
            call()
            collected.append(time.thread_time() - started)
    return statistics.median(times[0]), statistics.median(times[1])
