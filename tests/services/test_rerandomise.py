"""A re-randomised answer decrypts to the same numbers and tells nothing else of how it was computed."""

import numpy as np

from he_runtime.client_keys import make_evaluation_keys
from he_runtime.engines.numba_engine import NumbaEngine
from he_runtime.parameters import make_parameters
from he_runtime.seal import SealClient
from services.server.rerandomise import public_key, rerandomised

PARAMETERS = make_parameters(1024, 4, insecure_test=True)


def test_the_numbers_stay_and_the_ciphertext_does_not() -> None:
    client, engine = SealClient(PARAMETERS), NumbaEngine(PARAMETERS)
    secret = client.generate_secret_key()
    keys = list(make_evaluation_keys(client, secret, {0: 4}))
    zero = public_key(keys, PARAMETERS)
    assert zero is not None
    slots = np.linspace(-1, 1, PARAMETERS.slots)
    scale = PARAMETERS.scale
    sealed = client.encrypt(secret, slots, 0, scale)
    answer = engine.from_seeded(sealed.seed, sealed.rows[0], scale)
    before = client.decrypt(secret, engine.to_rows(answer), scale)
    rows, prime = [], PARAMETERS.primes[0]
    for _ in range(2):
        masked = rerandomised(engine, answer, zero)
        rows.append(engine.to_rows(masked))
        after = client.decrypt(secret, rows[-1], scale)
        # The noise of u·zero + (e0, e1): 3.24·sqrt(4N/3 + 1) in a coefficient, sqrt(N) times that in a slot at most six times.
        bound = 6 * 3.24 * np.sqrt(4 * 1024 / 3 + 1) * np.sqrt(1024) / scale
        assert 0 < np.abs(after - before).max() < bound
    for part in range(2):
        # Differences of one half to another are spread over all residues, as uniform ones are.
        difference = (rows[0][part, 0].astype(np.int64) - rows[1][part, 0].astype(np.int64)) % prime
        assert abs(difference.mean() / prime - 0.5) < 5 / np.sqrt(12 * 1024)
        assert len(np.unique(difference)) == 1024


def test_a_key_of_one_digit_has_no_encryption_of_zero_to_give() -> None:
    client = SealClient(PARAMETERS)
    secret = client.generate_secret_key()
    assert public_key(make_evaluation_keys(client, secret, {0: 1}), PARAMETERS) is None
