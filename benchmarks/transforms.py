"""The number-theoretic transform: one row, beside SEAL's evaluator transforming all rows of a ciphertext."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Row, row
from benchmarks.timing import taking_turns
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.transform import TransformTables, make_tables
from he_runtime.parameters import make_parameters
from he_runtime.seal import SealClient, SealOperations

ROWS = 3  # primes of the chain: a few, so that all rows stay in the cache, as they do in a key switch


def transform_rows(ring_degree: int, repeats: int) -> list[Row]:
    """Seconds of one forward and one inverse transform."""
    parameters = make_parameters(ring_degree, ROWS - 1)
    client = SealClient(parameters)
    secret = client.generate_secret_key()
    seal = SealOperations(client, secret, [])
    sealed = client.encrypt(secret, np.zeros(parameters.slots), ROWS - 1, parameters.scale)
    engine = NumbaEngine(parameters)
    rows = engine.to_rows(engine.from_seeded(sealed.seed or bytes(64), sealed.rows[0], parameters.scale))
    theirs, ours = client.to_seal(rows, parameters.scale), rows.astype(np.float64)
    tables = make_tables(parameters.primes, ring_degree)
    # Inverse and forward follow each other, so that every round starts from the same transformed rows.
    seconds = taking_turns(
        {
            "inverse": lambda: inverse_rows(ours, tables),
            "seal inverse": lambda: seal.to_coefficients(theirs),
            "forward": lambda: forward_rows(ours, tables),
            "seal forward": lambda: seal.from_coefficients(theirs),
        },
        repeats,
    )
    count = 2 * ROWS
    return [
        row(f"NTT {name}, N={ring_degree}", seconds[name] / count, seconds[f"seal {name}"] / count)
        for name in ("forward", "inverse")
    ]


def forward_rows(parts: NDArray[np.float64], tables: TransformTables) -> None:
    """Transform coefficients [parts, primes, N] in place."""
    for part in parts:
        for index, values in enumerate(part):
            tables.forward(values, index)


def inverse_rows(parts: NDArray[np.float64], tables: TransformTables) -> None:
    """Transform [parts, primes, N] back in place."""
    for part in parts:
        for index, values in enumerate(part):
            prime = int(tables.primes[index, 0])
            tables.inverse(values, index, centred(pow(len(values), -1, prime), prime))
