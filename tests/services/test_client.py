"""The client against the fake server: what it repeats, what it never repeats, what it finds out before it believes an answer."""

import asyncio
import hashlib
import json
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from he_runtime.bundle import Bundle
from he_runtime.errors import BundleError
from he_runtime.plain_model import logits as plain_logits
from he_runtime.wire.answers import write_answer
from he_runtime.wire.ciphertexts import write_result_ciphertext
from services.client import (
    AnswerError,
    AsyncClient,
    BusyError,
    Client,
    ClientError,
    KeysUnknownError,
    NotAuthenticatedError,
    OtherModelError,
    Result,
    Retries,
    RoomError,
    SelfTestError,
    ServerError,
    TextTooLongError,
    UnreachableError,
    errors,
)
from services.client.errors import server_error
from services.client.key_processes import KeyProcesses
from services.client.public_half import make_private, stored_half
from services.client.session import Session
from services.client.testing import FakeServer, insecure_test_plan
from services.truncation import truncating_tokenizer
from tests.bundles import write_small_bundle
from tests.services.tiny import eventually

TEXT = "the film was good"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("fake") / "bundle")


@pytest.fixture
def server(bundle: Path) -> Iterator[FakeServer]:
    with FakeServer(bundle) as running:
        yield running


@pytest.fixture
def client(server: FakeServer, tmp_path: Path) -> Iterator[Client]:
    with server.client(tmp_path / "keys") as connected:
        connected.prepare()
        yield connected


def count(server: FakeServer, method: str) -> int:
    return sum(name == method for name, _ in server.calls)


def test_the_fake_server_answers_as_the_model_does(client: Client, bundle: Path) -> None:
    plain = plain_logits(Bundle.open(bundle).weights(), client.model.embed(*client.tokenise(TEXT)))
    np.testing.assert_allclose(client.classify(TEXT).logits, plain, rtol=0, atol=1e-3)


def test_a_client_that_truncates_answers_for_what_training_would_see(
    server: FakeServer, bundle: Path, tmp_path: Path
) -> None:
    long = "good film was the bad " * 3
    wanted = truncating_tokenizer(Bundle.open(bundle)).encode(long)
    with server.client(tmp_path / "keys", truncate=True) as client:
        result = client.classify(long)
        plain = plain_logits(Bundle.open(bundle).weights(), client.model.embed(list(wanted.ids), list(wanted.type_ids)))
        assert client.classify(TEXT).cut == 0
    np.testing.assert_allclose(result.logits, plain, rtol=0, atol=1e-3)
    assert (result.tokens, result.cut) == (8, 15 + 2 - 8)
    with server.client(tmp_path / "keys") as client, pytest.raises(TextTooLongError, match=r"at most 8.*truncate"):
        client.classify(long)


def test_what_is_passing_is_repeated_under_fresh_randomness(server: FakeServer, client: Client, monkeypatch) -> None:
    sent: list[bytes] = []
    encrypt = client.session.encrypt

    def remembering(*arguments):
        inputs = encrypt(*arguments)
        sent.extend(inputs.values())
        return inputs

    monkeypatch.setattr(client.session, "encrypt", remembering)
    server.refuse("Infer", "busy", times=3)
    assert client.classify(TEXT).label in client.labels
    assert count(server, "Infer") == 4
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize("method", ["OpenUpload", "SelfTest", "Infer"])  # one answer, and a stream of them
def test_a_call_that_the_server_breaks_off_is_repeated(server: FakeServer, tmp_path: Path, method: str) -> None:
    server.break_off(method)
    with server.client(tmp_path / "keys") as client:
        assert client.classify(TEXT).label in client.labels
    assert count(server, method) == 2
    server.break_off(method)
    impatient = server.client(tmp_path / "impatient", retries=Retries(attempts=1))
    with impatient as client, pytest.raises(UnreachableError) as caught:
        client.classify(TEXT)
    assert caught.value.reason == "unavailable"


@pytest.mark.parametrize("end", [Client.cancel, Client.close])
def test_a_call_that_is_ended_here_is_not_repeated(
    server: FakeServer, tmp_path: Path, end: Callable[[Client], None]
) -> None:
    client = server.client(tmp_path / "keys")
    client.prepare()
    with ThreadPoolExecutor(1) as threads, server._computing:  # so that no answer comes
        asking = threads.submit(client.classify, TEXT)
        eventually(lambda: count(server, "Infer") == 1)
        end(client)
        with pytest.raises(UnreachableError) as caught:
            asking.result(30)
    assert caught.value.reason == "cancelled"
    assert count(server, "Infer") == 1
    client.close()


@pytest.mark.parametrize("end", [Client.cancel, Client.close])
def test_what_is_encrypted_when_its_call_is_ended_is_not_sent(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Client], None]
) -> None:
    client = server.client(tmp_path / "keys")
    client.prepare()
    encrypt = client.session.encrypt

    def ended_meanwhile(*arguments):
        inputs = encrypt(*arguments)
        end(client)
        return inputs

    monkeypatch.setattr(client.session, "encrypt", ended_meanwhile)
    with pytest.raises(UnreachableError) as caught:
        client.classify(TEXT)
    assert caught.value.reason == "cancelled"
    assert count(server, "Infer") == 0
    client.close()


def test_a_call_that_is_ended_between_two_attempts_makes_no_second(server: FakeServer, tmp_path: Path) -> None:
    with server.client(tmp_path / "keys") as client:
        client.prepare()
        client.retries = Retries(sleep=lambda _seconds: client.cancel())
        server.refuse("Infer", "busy", times=1)
        with pytest.raises(UnreachableError) as caught:
            client.classify(TEXT)
        assert caught.value.reason == "cancelled"
        assert count(server, "Infer") == 1
        assert client.classify(TEXT).label in client.labels  # a call begun later is another wish


def test_what_is_final_is_not_repeated(server: FakeServer, client: Client) -> None:
    server.refuse("Infer", "quarantined")
    with pytest.raises(ServerError, match="quarantined"):
        client.classify(TEXT)
    assert count(server, "Infer") == 1


def test_keys_that_the_server_forgot_are_sent_once_more_from_disk(
    server: FakeServer, client: Client, monkeypatch
) -> None:
    made = []
    monkeypatch.setattr("services.client.key_cache.make_evaluation_keys", lambda *arguments: made.append(arguments))
    server.forget_keys()
    label = client.classify(TEXT).label
    assert label in client.labels
    assert count(server, "UploadKeys") == 2
    assert not made
    server.refuse("Infer", "unknown_key_set", times=2)
    with pytest.raises(KeysUnknownError):  # once, not for ever
        client.classify(TEXT)


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_other_processes_make_keys_of_the_same_secret(
    server: FakeServer, tmp_path: Path, passphrase: str | None, monkeypatch
) -> None:
    monkeypatch.setattr(
        "services.client.key_cache.make_evaluation_keys", lambda *_: pytest.fail("made in this process")
    )
    with server.client(tmp_path / "keys", passphrase=passphrase, key_processes=2) as client:
        client.prepare()  # the self-test uses every key
        assert client.classify(TEXT).label in client.labels
        kept = sorted((client.session.directory / "evaluation-keys").iterdir())
    assert [int(path.name) for path in kept] == sorted(server.plan.keys, key=str)
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


def test_a_key_process_that_ends_is_named_and_its_finished_keys_stay(server: FakeServer, tmp_path: Path) -> None:
    with server.client(tmp_path / "keys") as client:
        secret, (first, second) = client._cache.secret(), list(server.plan.keys.items())[:2]
        with KeyProcesses(client._cache, 1) as others:
            others.make(*first)
            others._all[0].kill()
            with pytest.raises(ClientError, match=r"ended with status -9.*key_processes=1"):
                others.make(*second)
        assert client._cache.kept(*first) == client._cache.message(secret, *first)
        assert client._cache.kept(*second) is None


def test_what_stops_the_making_of_keys_reaches_the_caller(server: FakeServer, tmp_path: Path, monkeypatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("services.client.key_cache.KeyCache._write", failing)
    with server.client(tmp_path / "keys") as client, pytest.raises(OSError, match="No space left"):
        client.prepare()


@pytest.mark.parametrize("which", ["relinearisation", "rotation"])
def test_a_wrong_key_is_found_before_an_answer_is_believed(server: FakeServer, tmp_path: Path, which: str) -> None:
    element = 0 if which == "relinearisation" else max(server.plan.keys)
    with server.client(tmp_path / "keys") as client:
        client._upload(client._cache.secret())
        server.damage_key(element)
        before = (client.session.directory / "secret.key").read_bytes()
        with pytest.raises(SelfTestError, match=which):
            client.prepare()
        assert not (client.session.directory / "secret.key").exists()  # what the server learned of it is worth nothing
        assert count(server, "Infer") == 0
        assert client.classify(TEXT).label in client.labels  # with new keys
        assert (client.session.directory / "secret.key").read_bytes() != before


def test_every_key_takes_part_in_the_self_test(server: FakeServer, client: Client) -> None:
    for element in server.plan.keys:
        server.damage_key(element)
        with pytest.raises(SelfTestError):
            client._self_test(client._cache.secret())
        server.damage_key(element)  # the same change once more undoes it
    client._self_test(client._cache.secret())


def test_rotated_keys_are_sent_anew_to_every_server(bundle: Path, tmp_path: Path) -> None:
    """What another server has of the old ones would answer nonsense; it is not asked under them."""
    with FakeServer(bundle) as one, FakeServer(bundle) as other:
        for server in (one, other):
            with server.client(tmp_path / "keys") as client:
                wanted = client.classify(TEXT).logits
        with one.client(tmp_path / "keys") as client:
            client.rotate_keys()
            np.testing.assert_allclose(client.classify(TEXT).logits, wanted, rtol=0, atol=1e-3)
        with other.client(tmp_path / "keys") as client:
            np.testing.assert_allclose(client.classify(TEXT).logits, wanted, rtol=0, atol=1e-3)
        assert count(other, "OpenUpload") == 2


def test_damaged_cached_keys_are_made_anew(server: FakeServer, client: Client) -> None:
    kept = sorted((client.session.directory / "evaluation-keys").iterdir())
    assert len(kept) == len(client.plan.keys)
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"x")
    server.forget_keys()
    assert client.classify(TEXT).label in client.labels
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


def test_the_servers_waiting_time_is_honoured_and_jitter_added() -> None:
    waits: list[float] = []
    policy = Retries(
        attempts=4, first_seconds=1, longest_seconds=3, sleep=waits.append, uniform=lambda _low, high: high
    )
    answers = iter([server_error("busy", "", 7.0), server_error("unavailable", ""), server_error("draining", "", 2.0)])

    def call() -> str:
        for error in answers:
            raise error
        return "answered"

    assert policy.run(call) == "answered"
    assert waits == [8.0, 2.0, 5.0]
    impatient = Retries(patience_seconds=5, sleep=waits.append)
    with pytest.raises(BusyError):
        impatient.run(lambda: (_ for _ in ()).throw(server_error("busy", "", 60.0)))
    assert len(waits) == 3
    assert policy.wait_after(server_error("cancelled", ""), 1) is None
    assert policy.wait_after(server_error("quota_exceeded", ""), 1) is None
    assert policy.wait_after(server_error("disk_full", "", 60.0), 1) == 61.0


def test_the_tree_drawn_in_the_file_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ClientError)]
    assert all(value.__name__ in drawn for value in classes)
    assert len([line for line in drawn.splitlines() if "Error " in line or line.endswith("Error")]) == len(classes)
    for reason, kind in {"busy": BusyError, "disk_full": RoomError, "unauthenticated": NotAuthenticatedError}.items():
        assert type(server_error(reason, "")) is kind
    assert type(server_error("of a later server", "")) is ServerError


def test_only_rounded_numbers_are_shared() -> None:
    result = Result("positive", {"negative": 0.123456, "positive": 0.876544}, (0.1, 2.06), 4, 0, 8, {}, 1, 1)
    shared = result.share(4)
    assert shared.probabilities == {"negative": 0.125, "positive": 0.875}
    assert not hasattr(shared, "logits")
    assert shared.score is None
    assert Result("", {}, (3.14159,), 4, 0, 8, {}, 1, 1).share(3).score == 3.125
    with pytest.raises(ValueError, match="noise of the encryption"):
        result.share(30)


@pytest.mark.parametrize(
    ("lowering", "what"), [("hadamard sums", 1 + 1j), ("token shifts", 1 + 1j), ("token shifts", 1)]
)
def test_what_an_honest_answer_leaves_empty_is_checked(
    bundle: Path, tmp_path: Path, lowering: str, what: complex
) -> None:
    """An answer with something where an honest one repeats itself, has no imaginary part, or nothing but zeros."""
    with FakeServer(bundle, lowering=lowering) as server, server.client(tmp_path / "keys") as client:
        assert client.classify(TEXT).label in client.labels
        secret, plan, session = client._cache.secret(), client.plan, client.session
        slots = np.zeros(plan.parameters.slots, np.complex128)
        slots[::2] = what
        sealed = session.seal.encrypt(secret, slots, 0, plan.output_scale)
        fresh = server._engine.from_seeded(sealed.seed, sealed.rows[0], plan.output_scale)
        period = plan.answer_period
        assert (period is None) == (lowering == "token shifts")
        if period is None:
            dishonest = write_result_ciphertext(server._engine.to_rows(fresh), plan.output_scale, session.binding)
        else:
            dishonest = write_answer(server._engine.to_coefficients(fresh), period, plan.output_scale, session.binding)
        with pytest.raises(AnswerError, match="an honest one holds zero"):
            session.decrypt(secret, 8, dishonest)


def test_the_trace_on_the_wire_is_the_same_whatever_the_answer(bundle: Path, tmp_path: Path) -> None:
    """Texts of one bucket with other words, other answers: same calls, same sizes, in the same order."""
    traces, labels = [], set()
    with FakeServer(bundle) as server, server.client(tmp_path / "keys") as client:
        client.prepare()
        for text in ("the film was good", "bad bad was bad", "a a a a", "was"):
            server.calls.clear()
            labels.add(client.classify(text).logits)
            traces.append(list(server.calls))
    assert len(labels) == 4
    assert traces[0] == traces[1] == traces[2]
    # A query that cannot be answered ends here, and the server is told nothing of it.
    narrow = write_small_bundle(tmp_path / "narrow", logit_range=1e-3)
    with FakeServer(narrow) as server, server.client(tmp_path / "keys") as client:
        client.prepare()
        server.calls.clear()
        with pytest.raises(errors.OutOfRangeError):
            client.classify("the film was good")
        assert server.calls == traces[0]


def test_the_twin_for_asyncio(server: FakeServer, tmp_path: Path) -> None:
    async def ask() -> list[str]:
        options = {"insecure": True, "allow_insecure_test": True}
        async with AsyncClient(server.target, tmp_path / "keys", **options) as client:
            await client.prepare()
            answers = await asyncio.gather(*(client.classify(TEXT) for _ in range(2)))
            await client.delete_keys()
            return [answer.label for answer in answers]

    labels = asyncio.run(ask())
    assert len(set(labels)) == 1
    assert not server._key_sets


def test_what_a_server_sent_is_verified_before_it_is_kept(bundle: Path, tmp_path: Path) -> None:
    files = Bundle.open(bundle).client_half_files()
    place = tmp_path / "deep" / "keys" / "program"
    make_private(place)
    assert all(stat.S_IMODE(of.stat().st_mode) == 0o700 for of in (place, place.parent, place.parent.parent))
    stored_half(place, files)
    written = (place / "model" / "config.json").stat().st_mtime_ns
    stored_half(place, files)
    assert (place / "model" / "config.json").stat().st_mtime_ns == written
    with pytest.raises(BundleError, match="differs from its digest"):
        stored_half(place, {**files, "tokenizer.json": b"{}"})
    assert (place / "model" / "tokenizer.json").read_bytes() == files["tokenizer.json"]
    assert {path.name for path in place.iterdir()} == {"model"}


def test_a_client_asks_a_server_of_its_bundle_alone(server: FakeServer, bundle: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    with server.client(tmp_path / "right", bundle_digest=digest.upper()) as client:
        assert client.model.digest == digest
    server.calls.clear()
    with pytest.raises(OtherModelError, match=f"the server's bundle has the digest {digest}, not {digest[:-1]}"):
        server.client(tmp_path / "wrong", bundle_digest=digest[:-1])
    assert [method for method, _ in server.calls] == ["GetClientBundle"]
    assert not (tmp_path / "wrong").exists()


def test_a_plan_has_no_buckets_but_its_models(server: FakeServer, bundle: Path, tmp_path: Path) -> None:
    plan = insecure_test_plan(Bundle.open(bundle)).client_plan().to_json()
    buckets = plan["buckets"]
    assert isinstance(buckets, dict)
    finer = {**plan, "buckets": {**buckets, "2": buckets["4"]}}
    files = {**Bundle.open(bundle).client_half_files(), "plan.json": json.dumps(finer).encode()}
    with pytest.raises(AnswerError, match=r"its plan has buckets of \[2\] tokens, its model those of \[4, 8\]"):
        Session(tmp_path, files, allow_insecure_test=True)


def test_a_tokenizer_that_is_none_is_said_to_be(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "tokenizer.json").write_text("{}")
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["files"]["tokenizer.json"] |= {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with FakeServer(broken) as server, pytest.raises(AnswerError, match="its tokenizer"):
        server.client(tmp_path / "keys")


def test_nobody_there_is_said_in_finite_time(tmp_path: Path) -> None:
    from services.client import Timeouts

    with pytest.raises(UnreachableError, match="is it serving"):
        Client("127.0.0.1:1", tmp_path, insecure=True, timeouts=Timeouts(connect=0.3))


def test_keys_that_a_server_forgets_while_they_are_tested_are_sent_once_more(
    server: FakeServer, tmp_path: Path
) -> None:
    with server.client(tmp_path / "keys") as client:
        server.refuse("SelfTest", "unknown_key_set")
        assert client.classify(TEXT).label
    assert count(server, "SelfTest") == 2


def test_keys_that_another_process_rotated_are_taken_up(server: FakeServer, tmp_path: Path) -> None:
    # As two processes would: each has a Client of its own.
    with server.client(tmp_path / "keys") as asking, server.client(tmp_path / "keys") as rotating:
        before = asking.classify(TEXT)
        rotating.rotate_keys()
        server.calls.clear()
        assert asking.classify(TEXT).label == before.label
        # No key was made or sent, and no secret lost.
        assert [method for method, _ in server.calls] == ["OpenUpload", "Infer"]
        assert rotating.classify(TEXT).label == before.label


def test_clients_that_share_a_directory_make_one_set_of_keys(server: FakeServer, bundle: Path, tmp_path: Path) -> None:
    # As two processes would: each has a Client of its own, and both come first.
    clients = [server.client(tmp_path / "keys") for _ in range(3)]
    together = threading.Barrier(len(clients))

    def ask(client: Client) -> Result:
        together.wait(30)
        return client.classify(TEXT)

    try:
        with ThreadPoolExecutor(len(clients)) as threads:
            results = list(threads.map(ask, clients))
        plain = plain_logits(Bundle.open(bundle).weights(), clients[0].model.embed(*clients[0].tokenise(TEXT)))
    finally:
        for client in clients:
            client.close()
    for result in results:
        np.testing.assert_allclose(result.logits, plain, rtol=0, atol=1e-3)
    assert count(server, "UploadKeys") == count(server, "SelfTest") == 1
