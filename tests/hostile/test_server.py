"""Hostile bytes against a running server: each is refused within a second with its reason, and the front's memory stays flat."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from services._pb import inference_pb2 as messages
from services.client import Client, Retries, SelfTestError, ServerError
from services.local import LocalServer
from services.server.refusals import REASONS
from tests.bundles import write_small_bundle
from tests.hostile.generate_corpus import CORPUS, corrupt, resealed
from tests.services.tiny import TEXT, tiny_client, tiny_server

pytestmark = pytest.mark.hostile
METHODS = ("GetClientBundle", "OpenUpload", "UploadKeys", "SelfTest", "Infer", "DeleteKeys")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    place = tmp_path_factory.mktemp("hostile")
    settings = {"limits.key_sets_per_client": 1000}
    with tiny_server(write_small_bundle(place / "bundle"), place / "server", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with tiny_client(server, tmp_path_factory.mktemp("keys"), retries=Retries(attempts=1)) as connected:
        connected.prepare()
        yield connected


def raw(server: LocalServer, method: str, payload: bytes, seconds: float = 10.0) -> grpc.RpcError | None:
    """Send any bytes at all to a method; the error, or None when there was an answer."""
    with grpc.secure_channel(server.target, grpc.ssl_channel_credentials(server.authority.read_bytes())) as channel:
        path = f"/thex.v1.Inference/{method}"
        try:
            if method == "UploadKeys":
                channel.stream_unary(path)(iter([payload]), timeout=seconds)
            elif method in ("GetClientBundle", "Infer"):
                list(channel.unary_stream(path)(payload, timeout=seconds))
            else:
                channel.unary_unary(path)(payload, timeout=seconds)
        except grpc.RpcError as error:
            return error
    return None


def resident(server: LocalServer) -> int:
    return psutil.Process(server.process_id).memory_info().rss


def refused(call, *arguments: object) -> str:
    seconds = []
    for _ in range(2):  # once more, should this machine have been busy with something else
        started = time.monotonic()
        with pytest.raises(ServerError) as caught:
            call(*arguments)
        seconds.append(time.monotonic() - started)
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1
    assert caught.value.reason in REASONS, caught.value.reason
    return caught.value.reason


def corrupt_of(kind: str, right: bytes) -> list[tuple[str, str, bytes]]:
    """The corpus's defects, made of a message that fits this server's parameters."""
    return [case for case in corrupt(kind, right) if not case[0].startswith(("element-", "residues-"))]


def test_every_defect_in_a_query_is_refused_within_a_second(server: LocalServer, client: Client) -> None:
    inputs = client.session.encrypt(client._cache.secret(), client.session.prepare(TEXT))
    name, right = next(iter(inputs.items()))

    def infer(content: bytes) -> None:
        sent = [messages.Ciphertext(name=n, data=content if n == name else data) for n, data in inputs.items()]
        digest, key_set = client.plan.program_digest, client._stored_key_set()
        request = messages.InferRequest(key_set=key_set, program_digest=digest, bucket=8, inputs=sent)
        list(client._connection.stream("Infer", request, 10))

    refused(infer, b"")  # the first refusal has the connection's cost
    before = resident(server)
    for _ in range(3):
        for defect, reason, content in corrupt_of("fresh", right):
            assert refused(infer, content) == reason, defect
    full = resealed(right[:160] + b"\xff" * 500 + right[660:])
    assert refused(infer, full) == "residue_out_of_range"
    assert resident(server) - before < 20 << 20
    infer(right)


def test_every_defect_in_a_key_is_refused_within_a_second(server: LocalServer, client: Client) -> None:
    element, level = next(iter(client.plan.keys.items()))
    right = client._cache.message(client._cache.secret(), element, level)
    digest, call = client.plan.program_digest, client._connection.call
    key_set = call("OpenUpload", messages.OpenUploadRequest(program_digest=digest), 10).key_set

    def upload(content: bytes) -> None:
        step = 1 << 16
        starts = range(0, max(1, len(content)), step)
        chunks = (
            messages.KeyChunk(key_set=key_set, galois_element=element, offset=at, data=content[at : at + step])
            for at in starts
        )
        state = call("UploadKeys", chunks, 10)
        assert element not in state.complete
        raise ServerError("truncated", "accepted as a part")  # which is what a beginning of a key is

    before = resident(server)
    for defect, reason, content in corrupt_of("key", right):
        got = refused(upload, content)
        assert got == reason or (got, reason) == ("oversize", "trailing_bytes"), defect
    assert resident(server) - before < 20 << 20


def test_the_committed_corpus_and_noise_to_every_method(server: LocalServer, client: Client) -> None:
    generator = random.Random(7)
    before, slowest = resident(server), 0.0
    payloads = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))[::3]]
    payloads += [generator.randbytes(generator.choice((1, 3, 30, 300, 3000))) for _ in range(60)]
    for payload in payloads:
        for method in METHODS:
            started = time.monotonic()
            error = raw(server, method, payload)
            slowest = max(slowest, time.monotonic() - started)
            # Noise that happens to be an empty request is one; everything else is refused, never with a crash's status.
            assert error is None or error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN), method
    assert slowest < 1
    assert resident(server) - before < 30 << 20
    assert client.classify(TEXT).label


def test_requests_cut_at_every_byte(server: LocalServer, client: Client) -> None:
    """A small request, encoded, cut everywhere: an answer or a refusal each time, and an honest answer after."""
    digest, key_set = client.plan.program_digest, client._stored_key_set()
    whole = messages.InferRequest(
        key_set=key_set,
        program_digest=digest,
        bucket=8,
        inputs=[messages.Ciphertext(name="x", data=b"THEXWIRE" + bytes(9))],
    ).SerializeToString()
    for length in range(len(whole) + 1):
        started = time.monotonic()
        assert raw(server, "Infer", whole[:length]) is not None
        assert time.monotonic() - started < 1
    assert client.classify(TEXT).label


def test_too_much_of_everything_is_refused(server: LocalServer, client: Client) -> None:
    key_set = client._stored_key_set()

    def upload(size: int) -> None:
        chunk = messages.KeyChunk(key_set=key_set, galois_element=0, offset=0, data=b"THEXWIRE" + bytes(size))
        client._connection.call("UploadKeys", iter([chunk]), 10)

    assert refused(upload, 5 << 20) == "oversize"
    with pytest.raises(ServerError) as caught:  # gRPC itself refuses, before a byte of it is parsed
        upload(31 << 20)
    assert caught.value.reason in ("oversize", "resource_exhausted")
    many = [messages.Ciphertext(name=str(number), data=b"") for number in range(10_000)]
    request = messages.InferRequest(key_set=key_set, program_digest=client.plan.program_digest, bucket=8, inputs=many)
    assert refused(lambda: list(client._connection.stream("Infer", request, 10))) == "wrong_inputs"
    assert client.classify(TEXT).label


def test_a_key_of_anothers_is_loaded_and_found_by_its_owner_alone(server: LocalServer, tmp_path: Path) -> None:
    """The server cannot tell; the client's self-test does."""
    with tiny_client(server, tmp_path / "one") as one, tiny_client(server, tmp_path / "two") as two:
        element, level = max(two.plan.keys.items())
        two._cache.secret()
        foreign = one._cache.message(one._cache.secret(), element, level)
        two._cache._write(element, foreign)
        with pytest.raises(SelfTestError):
            two.prepare()
        assert two.classify(TEXT).label
