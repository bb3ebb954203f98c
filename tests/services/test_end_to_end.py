"""The real client against a real server process over TLS, with a small model on secure parameters (N=16384)."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from he_runtime.bundle import Bundle
from he_runtime.client_keys import make_evaluation_keys
from he_runtime.plain_model import logits as plain_logits
from he_runtime.wire.evaluation_keys import write_evaluation_key
from services._pb import inference_pb2 as messages
from services.client import Client, KeysUnknownError, OutOfRangeError, ServerError, TextTooLongError
from services.local import LocalServer, local_server
from tests.bundles import write_small_bundle

TEXT = "the film was good"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    cache = tmp_path_factory.mktemp("cache")
    with local_server(bundle, cache_directory=cache) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(server.target, tmp_path_factory.mktemp("keys"), server.authority) as connected:
        connected.prepare()
        yield connected


@pytest.mark.parametrize("text", ["good", TEXT, "a bad bad film was the film"[:20]])
def test_an_encrypted_answer_is_the_plain_models_answer(client: Client, bundle: Path, text: str) -> None:
    result = client.classify(text)
    plain = plain_logits(Bundle.open(bundle).weights(), client.model.embed(*client.tokenise(text)))
    np.testing.assert_allclose(result.logits, plain, rtol=0, atol=1e-4)
    assert any(encrypted != exact for encrypted, exact in zip(result.logits, plain, strict=True))  # CKKS is never exact
    assert result.label == ("negative", "positive")[int(plain.argmax())]
    assert sum(result.probabilities.values()) == pytest.approx(1)


def test_keys_stay_and_the_secret_one_is_not_at_the_server(client: Client, server: LocalServer) -> None:
    with Client(server.target, client.key_directory, server.authority) as again:
        again.prepare()
        assert again._stored_key_set() == client._stored_key_set()
        assert again.classify(TEXT).label == client.classify(TEXT).label


def test_a_server_that_starts_from_its_cache_gives_the_same_answers(
    client: Client, bundle: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    labels, written = [], []
    for _ in range(2):
        with (
            local_server(bundle, cache_directory=cache) as running,
            Client(running.target, tmp_path / "keys", running.authority) as connected,
        ):
            labels.append(connected.classify(TEXT).label)
        (file,) = cache.iterdir()
        written.append(file.stat().st_mtime_ns)
    assert labels == [client.classify(TEXT).label] * 2
    assert written[0] == written[1]  # the second start took it as it was


def test_a_text_too_long_is_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(TextTooLongError, match="at most 8"):
        client.classify("good " * 20)


def test_an_answer_out_of_range_is_reported_as_such(tmp_path: Path) -> None:
    narrow = write_small_bundle(tmp_path / "narrow", logit_range=1e-3)
    with (
        local_server(narrow, cache_directory=tmp_path / "cache") as running,
        Client(running.target, tmp_path / "keys", running.authority) as client,
        pytest.raises(OutOfRangeError, match="outside the calibrated range"),
    ):
        client.classify(TEXT)


def encrypted(client: Client) -> list[messages.Ciphertext]:
    inputs = client.session.encrypt(client._cache.secret(), client.session.prepare(TEXT))
    return [messages.Ciphertext(name=name, data=data) for name, data in inputs.items()]


def infer(client: Client, **changes: object) -> None:
    inputs = encrypted(client)
    fields = {
        "key_set": client._stored_key_set(),
        "program_digest": client.plan.program_digest,
        "bucket": 8,
        "inputs": inputs,
        **changes,
    }
    for _ in client._connection.stream("Infer", messages.InferRequest(**fields), 30):
        pass


def test_hostile_queries_are_refused_within_a_second_and_the_next_honest_one_is_answered(client: Client) -> None:
    inputs = encrypted(client)

    def changed(alter) -> list[messages.Ciphertext]:
        first, *rest = inputs
        return [messages.Ciphertext(name=first.name, data=alter(first.data)), *rest]

    def flipped(data: bytes) -> bytes:
        return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]

    cases = {
        "truncated": {"inputs": changed(lambda data: data[:-100])},
        "digest_mismatch": {"inputs": changed(flipped)},
        "trailing_bytes": {"inputs": changed(lambda data: data + bytes(100))},
        "bad_magic": {"inputs": changed(lambda data: bytes(len(data)))},
        "secret_key_refused": {"inputs": changed(lambda data: b"THEXSECR" + data[8:])},
        "wrong_program": {"program_digest": "0" * 64},
        "unknown_key_set": {"key_set": "f" * 32},
        "wrong_bucket": {"bucket": 5},
        "wrong_inputs": {"inputs": [*inputs, *inputs]},
    }
    parameters = bytearray(inputs[0].data)
    parameters[40] ^= 1  # inside the parameters' digest
    cases["wrong_parameters"] = {"inputs": changed(lambda _: bytes(parameters))}
    for reason, changes in cases.items():
        started = time.monotonic()
        with pytest.raises(ServerError) as caught:
            infer(client, **changes)
        assert caught.value.reason == reason
        assert time.monotonic() - started < 1
    with pytest.raises(ServerError) as caught:
        infer(client, key_set="../../etc/passwd")
    assert caught.value.reason == "unknown_key_set"
    assert client.classify(TEXT).label in ("negative", "positive")


def test_hostile_uploads_are_refused_and_an_interrupted_one_resumes(client: Client) -> None:
    digest = client.plan.program_digest
    element, level = next(iter(client.plan.keys.items()))
    key = next(make_evaluation_keys(client.session.seal, client._cache.secret(), {element: level}))
    message = write_evaluation_key(key, client.session.binding)
    call = client._connection.call
    key_set = call("OpenUpload", messages.OpenUploadRequest(program_digest=digest), 10).key_set

    def upload(content: bytes, number: int = element, offset: int = 0) -> messages.UploadState:
        step = 1 << 20
        chunks = (
            messages.KeyChunk(
                key_set=key_set, galois_element=number, offset=offset + start, data=content[start : start + step]
            )
            for start in range(0, len(content), step)
        )
        return call("UploadKeys", chunks, 10)

    flipped = message[:9000] + bytes([message[9000] ^ 4]) + message[9001:]
    cases = [
        ("digest_mismatch", flipped, element, 0),
        ("oversize", message + bytes(10), element, 0),
        ("unwanted_key", message, 7777777, 0),
        ("wrong_offset", message, element, 12345),
        ("bad_magic", bytes(range(1, 200)), element, 0),
        ("secret_key_refused", b"THEXSECR" + bytes(500), element, 0),
        ("secret_key_refused", b"\x5e\xa1\x10\x04\x03" + bytes(500), element, 0),
    ]
    for reason, content, number, offset in cases:
        started = time.monotonic()
        with pytest.raises(ServerError) as caught:
            upload(content, number, offset)
        assert caught.value.reason == reason
        assert time.monotonic() - started < 1
    state = upload(message)
    assert list(state.complete) == [element]
    assert not state.ready
    with pytest.raises(ServerError) as caught:
        infer(client, key_set=key_set)
    assert caught.value.reason == "keys_incomplete"
    call("DeleteKeys", messages.DeleteKeysRequest(key_set=key_set), 10)
    with pytest.raises(KeysUnknownError):
        call("OpenUpload", messages.OpenUploadRequest(program_digest=digest, key_set=key_set), 10)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("services.client", ("torch", "transformers", "he_runtime.planner", "he_runtime.folding")),
        ("services.server.front", ("torch", "tenseal", "numpy", "numba")),
    ],
)
def test_imports_are_isolated(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    import tenseal  # noqa: F401  (it is installed, so that the check means something)
    import torch  # noqa: F401

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
