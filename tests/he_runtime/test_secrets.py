"""The secret key: opaque, never pickled, encrypted at rest."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from he_runtime.kernels.seeds import expand_uniform
from he_runtime.parameters import make_parameters
from he_runtime.seal import SealClient
from he_runtime.secret_store import SecretStoreError, create_key_file, open_secret_key, store_secret_key
from he_runtime.wire.message import SECRET_STORE_MAGIC

PARAMETERS = make_parameters(1024, 2, insecure_test=True)


@pytest.fixture
def client() -> SealClient:
    return SealClient(PARAMETERS)


def test_threads_may_share_a_client(client: SealClient) -> None:
    """SEAL saves by path only: two saves into one file would mix a ciphertext with whatever else is saved, the secret too."""
    secret = client.generate_secret_key()
    wanted = client.secret_rows(secret).tobytes()
    slots = np.zeros(PARAMETERS.slots)

    def work(_: int) -> bool:
        sealed = client.encrypt(secret, slots, 1, PARAMETERS.scale)
        return sealed.seed is not None and client.secret_rows(secret).tobytes() == wanted

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(400)))


def test_a_secret_key_shows_and_pickles_nothing(client: SealClient) -> None:
    secret = client.generate_secret_key()
    assert repr(secret) == "SecretKey(<hidden>)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_encrypted_at_a_level_is_decrypted_there_and_no_level_has_tables_of_others(
    client: SealClient, level: int
) -> None:
    """SEAL's whole chain takes tables for each of its levels: 6 GB at N=65536 with 54 primes."""
    secret, slots = client.generate_secret_key(), np.linspace(-1, 1, PARAMETERS.slots)
    fresh = client.encrypt(secret, slots, level, PARAMETERS.scale)
    assert (fresh.rows.shape, fresh.seed is None) == ((1, level + 1, PARAMETERS.ring_degree), False)
    primes = PARAMETERS.primes[: level + 1]
    rows = np.stack([fresh.rows[0], expand_uniform(fresh.seed, primes, PARAMETERS.ring_degree)])
    np.testing.assert_allclose(client.decrypt(secret, rows, fresh.scale), slots, rtol=0, atol=1e-4)
    contexts = client.ring(level + 1).context.key_context_data()
    assert len(contexts.parms().coeff_modulus()) == level + 2
    assert contexts.next_context_data().next_context_data() is None


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_stored_key_decrypts_what_the_first_encrypted(
    client: SealClient, tmp_path: Path, passphrase: str | None
) -> None:
    path, key_file = tmp_path / "secret.key", tmp_path / "storage.key"
    create_key_file(key_file)
    secret = client.generate_secret_key()
    store_secret_key(path, client, secret, passphrase=passphrase, key_file=key_file)
    assert path.stat().st_mode & 0o777 == key_file.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(SECRET_STORE_MAGIC)
    assert client.secret_rows(secret).tobytes()[:64] not in path.read_bytes()
    slots = np.linspace(-1, 1, PARAMETERS.slots)
    fresh = client.encrypt(secret, slots, 1, PARAMETERS.scale)
    assert fresh.seed is not None
    rows = np.stack([fresh.rows[0], expand_uniform(fresh.seed, PARAMETERS.primes[:2], PARAMETERS.ring_degree)])
    opened = open_secret_key(path, client, passphrase=passphrase, key_file=key_file)
    # Ten deviations of fresh noise: 3.2·sqrt(N)/Δ each.
    tolerance = 10 * 3.2 * PARAMETERS.ring_degree**0.5 / PARAMETERS.scale
    np.testing.assert_allclose(client.decrypt(opened, rows, PARAMETERS.scale), slots, rtol=0, atol=tolerance)
    with pytest.raises(SecretStoreError, match="never overwritten"):
        store_secret_key(path, client, secret, passphrase=passphrase, key_file=key_file)


def test_a_wrong_passphrase_a_damaged_file_and_open_permissions_are_refused(client: SealClient, tmp_path: Path) -> None:
    path, key_file = tmp_path / "secret.key", tmp_path / "storage.key"
    store_secret_key(path, client, client.generate_secret_key(), passphrase="right", key_file=key_file)
    with pytest.raises(SecretStoreError, match="does not open"):
        open_secret_key(path, client, passphrase="wrong", key_file=key_file)
    with pytest.raises(SecretStoreError, match="protected by a passphrase"):
        open_secret_key(path, client, passphrase=None, key_file=key_file)
    with pytest.raises(SecretStoreError, match="does not open"):
        open_secret_key(
            path, SealClient(make_parameters(1024, 3, insecure_test=True)), passphrase="right", key_file=key_file
        )
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SecretStoreError, match="does not open"):
        open_secret_key(path, client, passphrase="right", key_file=key_file)
    path.chmod(0o644)
    with pytest.raises(SecretStoreError, match="chmod 600"):
        open_secret_key(path, client, passphrase="right", key_file=key_file)
