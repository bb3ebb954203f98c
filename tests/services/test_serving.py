"""One real server for two tenants: what one may not do to the other, what a lost worker costs, what is logged and counted."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services._pb import inference_pb2 as messages
from services.certificates import make_certificates
from services.client import (
    AsyncClient,
    BusyError,
    Client,
    Identity,
    NotAuthenticatedError,
    Retries,
    ServerError,
    Timeouts,
    UnreachableError,
)
from services.local import LocalServer
from services.server.identity import TokenFile
from tests.bundles import write_small_bundle
from tests.services.tiny import TEXT, eventually, metric, stopped, tiny_client, tiny_server, worker_of

ONCE = Retries(attempts=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def bundle(place: Path) -> Path:
    return write_small_bundle(place / "bundle")


@pytest.fixture(scope="module")
def tokens(place: Path) -> dict[str, str]:
    file = TokenFile(place / "tokens.json")
    return {name: file.add(name, 1) for name in ("alice", "bob")}


@pytest.fixture(scope="module")
def server(bundle: Path, place: Path, tokens: dict[str, str]) -> Iterator[LocalServer]:
    settings = {
        "authentication": "token",
        "tokens": place / "tokens.json",
        "limits.queued_requests": 1,
        "limits.requests_per_client": 3,
        "limits.idle_seconds": 1,
        "limits.receive_seconds": 3,
    }
    with tiny_server(bundle, place / "server", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def alice(server: LocalServer, place: Path, tokens: dict[str, str]) -> Iterator[Client]:
    with tiny_client(server, place / "alice", tokens["alice"]) as client:
        client.prepare()
        yield client


@pytest.fixture(scope="module")
def bob(server: LocalServer, place: Path, tokens: dict[str, str]) -> Iterator[Client]:
    with tiny_client(server, place / "bob", tokens["bob"]) as client:
        client.prepare()
        yield client


def channel(server: LocalServer) -> grpc.Channel:
    return grpc.secure_channel(server.target, grpc.ssl_channel_credentials(server.authority.read_bytes()))


def health(server: LocalServer, service: str = "thex.v1.Inference", seconds: float = 1.0) -> int:
    with channel(server) as open_channel:
        stub = health_pb2_grpc.HealthStub(open_channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds).status


def query(client: Client, key_set: str | None = None) -> messages.InferRequest:
    inputs = client.session.encrypt(client._cache.secret(), client.session.prepare(TEXT))
    return messages.InferRequest(
        key_set=client._stored_key_set() if key_set is None else key_set,
        program_digest=client.plan.program_digest,
        bucket=8,
        inputs=[messages.Ciphertext(name=name, data=data) for name, data in inputs.items()],
    )


def test_the_front_loads_neither_numpy_nor_an_evaluator_nor_seal(server: LocalServer) -> None:
    loaded = Path(f"/proc/{server.process_id}/maps").read_text()
    assert "grpc" in loaded
    assert not [name for name in ("numpy", "numba", "llvmlite", "tenseal", "torch") if name in loaded]
    assert "numpy" in Path(f"/proc/{worker_of(server).pid}/maps").read_text()


def test_strangers_are_refused(server: LocalServer, place: Path, tokens: dict[str, str]) -> None:
    for token in (None, "thex_0123456789abcdef_nothing", tokens["alice"][:-1]):
        with pytest.raises(NotAuthenticatedError, match="bearer token"):
            tiny_client(server, place / "stranger", token)
    # Anyone may ask; a test before this one may have cost the server its worker.
    eventually(lambda: health(server) == health_pb2.HealthCheckResponse.SERVING)


def test_tenants_cannot_touch_each_other_nor_tell_whether_the_other_is_there(alice: Client, bob: Client) -> None:
    digest = alice.plan.program_digest
    theirs, invented = alice._stored_key_set(), "0123456789abcdef" * 2
    _, self_test = bob.session.encrypt_self_test(bob._cache.secret())

    def attempts(name: str) -> list[tuple[str, object]]:
        chunk = messages.KeyChunk(key_set=name, galois_element=0, offset=0, data=b"THEXWIRE" + bytes(500))
        return [
            ("OpenUpload", messages.OpenUploadRequest(program_digest=digest, key_set=name)),
            ("UploadKeys", iter([chunk])),
            ("SelfTest", messages.SelfTestRequest(program_digest=digest, key_set=name, input=self_test)),
            ("DeleteKeys", messages.DeleteKeysRequest(key_set=name)),
        ]

    answers = {}
    for name in (theirs, invented):
        answers[name] = []
        for method, request in attempts(name):
            with pytest.raises(ServerError) as caught:
                bob._connection.call(method, request, 10)
            answers[name].append((method, caught.value.reason, str(caught.value)))
        with pytest.raises(ServerError) as caught:
            list(bob._connection.stream("Infer", query(bob, name), 10))
        answers[name].append(("Infer", caught.value.reason, str(caught.value)))
    assert answers[theirs] == answers[invented]
    assert {reason for _, reason, _ in answers[theirs]} == {"unknown_key_set"}
    assert alice.classify(TEXT).label == bob.classify(TEXT).label


def test_a_long_request_delays_no_health_check_and_back_pressure_says_when_to_come_back(
    server: LocalServer, alice: Client, bob: Client
) -> None:
    expected = alice.classify(TEXT).label
    eventually(
        lambda: health(server) == health_pb2.HealthCheckResponse.SERVING
    )  # another test may have killed the worker
    with ThreadPoolExecutor(4) as threads:
        with stopped(worker_of(server)):
            running = [threads.submit(alice.classify, TEXT) for _ in range(2)]  # one computes, one waits
            eventually(lambda: metric(server, "thex_queue_length") == 1)
            for _ in range(5):
                started = time.monotonic()
                assert health(server) == health_pb2.HealthCheckResponse.SERVING
                assert time.monotonic() - started < 0.5
            with pytest.raises(BusyError) as caught:
                list(bob._connection.stream("Infer", query(bob), 10))
            assert caught.value.reason == "busy"
            assert caught.value.retry_seconds is not None
            assert caught.value.retry_seconds >= 1
        assert {answer.result().label for answer in running} == {expected}


def test_a_client_that_leaves_frees_its_worker_within_a_second(server: LocalServer, alice: Client, bob: Client) -> None:
    worker = worker_of(server)
    with stopped(worker), ThreadPoolExecutor(1) as threads:  # it cannot even be asked to stop
        leaving = threads.submit(lambda: list(alice._connection.stream("Infer", query(alice), 60)))
        eventually(lambda: metric(server, "thex_jobs_computing") == 1)
        alice.cancel()
        with pytest.raises(UnreachableError) as caught:
            leaving.result()
        assert caught.value.reason == "cancelled"  # which is never repeated
        started = time.monotonic()
        eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 1.0)
        assert time.monotonic() - started < 1
    assert bob.classify(TEXT).label == alice.classify(TEXT).label


def test_a_cancelled_call_that_waits_ends_no_other(
    server: LocalServer, place: Path, alice: Client, tokens: dict[str, str]
) -> None:
    label = alice.classify(TEXT).label
    worker = worker_of(server)

    async def ask() -> str:
        options = {"identity": Identity(tokens["alice"]), "allow_insecure_test": True, "retries": ONCE}
        async with AsyncClient(server.target, place / "alice", server.authority, **options) as client:
            await client.prepare()
            with stopped(worker):
                first = asyncio.ensure_future(client.classify(TEXT))
                await asyncio.to_thread(eventually, lambda: metric(server, "thex_jobs_computing") == 1)
                waiting = asyncio.ensure_future(client.classify(TEXT))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            return (await first).label

    assert asyncio.run(ask()) == label


def test_a_killed_worker_costs_a_client_nothing_but_time_and_its_input_is_not_tried_again(
    server: LocalServer, alice: Client
) -> None:
    before = metric(server, "thex_worker_restarts_total")
    label = alice.classify(TEXT).label
    with ThreadPoolExecutor(1) as threads:
        worker = worker_of(server)
        with stopped(worker):
            answer = threads.submit(alice.classify, TEXT)
            eventually(lambda: metric(server, "thex_jobs_computing") == 1)
            worker.kill()
        assert answer.result(30).label == label
    assert metric(server, 'thex_worker_restarts_total{cause="signal-9"}') >= 1
    assert metric(server, "thex_worker_restarts_total") > before
    request = query(alice)
    with ThreadPoolExecutor(1) as threads:
        worker = worker_of(server)
        with stopped(worker):
            lost = threads.submit(lambda: list(alice._connection.stream("Infer", request, 60)))
            eventually(lambda: metric(server, "thex_jobs_computing") == 1)
            worker.kill()
        with pytest.raises(BusyError, match="worker_restarted"):
            lost.result()
    eventually(lambda: metric(server, "thex_workers_ready") == 1)
    with pytest.raises(ServerError, match="quarantined"):
        list(alice._connection.stream("Infer", request, 60))


def test_a_worker_that_ends_while_idle_is_started_anew_before_anybody_asks(server: LocalServer, alice: Client) -> None:
    label = alice.classify(TEXT).label
    before = metric(server, "thex_worker_restarts_total")
    worker_of(server).kill()
    eventually(lambda: metric(server, "thex_worker_restarts_total") == before + 1)
    eventually(lambda: metric(server, "thex_workers_ready") == 1)
    assert alice.classify(TEXT).label == label


def test_a_slow_uploader_is_let_go(alice: Client) -> None:
    enough = threading.Event()

    def slowly() -> Iterator[messages.KeyChunk]:
        yield messages.KeyChunk(
            key_set=alice._stored_key_set(), galois_element=0, offset=0, data=b"THEXWIRE" + bytes(300)
        )
        enough.wait(20)

    with pytest.raises(UnreachableError, match="idle"):
        alice._connection.call("UploadKeys", slowly(), 10)
    enough.set()


def test_certificates_are_reloaded_without_a_restart(server: LocalServer, place: Path, tokens: dict[str, str]) -> None:
    directory = server.authority.parent
    old = {path: path.read_bytes() for path in directory.iterdir()}
    new = make_certificates(directory).authority.read_bytes()
    try:
        assert new != old[server.authority]
        with tiny_client(server, place / "alice", tokens["alice"]) as client:  # trusts the new authority alone
            assert client.classify(TEXT).label
        untrusting = place / "old.pem"
        untrusting.write_bytes(old[server.authority])
        with pytest.raises(UnreachableError):
            Client(server.target, place / "alice", untrusting, timeouts=Timeouts(connect=1.0))
    finally:
        for path, content in old.items():
            path.write_bytes(content)


def test_the_log_tells_each_call_once_and_no_secret_at_all(
    server: LocalServer, place: Path, tokens: dict[str, str], alice: Client
) -> None:
    secret_text = "bad bad film was bad"
    result = alice.classify(secret_text)
    with contextlib.suppress(NotAuthenticatedError):
        tiny_client(server, place / "stranger", "thex_0123456789abcdef_a-wrong-secret")
    eventually(lambda: "UNAUTHENTICATED" in (server.directory / "lines").read_text())
    text = (server.directory / "lines").read_text() + (server.directory / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{") and '"rpc"' in line]
    calls = [line for line in lines if line["event"] == "rpc"]
    assert {line["code"] for line in calls} >= {"OK", "UNAUTHENTICATED"}
    infer = [line for line in calls if line["method"] == "Infer" and line["code"] == "OK"][-1]
    assert infer["bytes_in"] == result.bytes_up
    assert infer["bytes_out"] == result.bytes_down
    assert infer["stages"].keys() == {"queue", "load", "compute", "write"}
    assert len({line["request_id"] for line in calls}) == len(calls)
    hidden = [
        secret_text,
        "a-wrong-secret",
        "alice",
        alice._stored_key_set(),
        *tokens.values(),
        *(tokens[n][5:] for n in tokens),
    ]
    hidden += [str(logit)[:8] for logit in result.logits] + [str(alice.tokenise(secret_text)[0])[1:-1]]
    assert not [word for word in hidden if word in text]


def test_metrics_count_streams_and_name_nobody(server: LocalServer, place: Path, alice: Client) -> None:
    before = metric(server, 'thex_rpc_duration_seconds_count{code="OK",method="Infer"}')
    result = alice.classify(TEXT)
    assert metric(server, 'thex_rpc_duration_seconds_count{code="OK",method="Infer"}') == before + 1
    assert metric(server, 'thex_sent_bytes_total{method="Infer"}') >= result.bytes_down
    refused = metric(server, 'thex_refused_total{reason="unauthenticated"}')
    with contextlib.suppress(NotAuthenticatedError):
        tiny_client(server, place / "nobody", "thex_0123456789abcdef_a-wrong-secret")
    eventually(lambda: metric(server, 'thex_refused_total{reason="unauthenticated"}') > refused)
    assert metric(server, "thex_build_info") == 1
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert not [word for word in ("alice", "token:", alice._stored_key_set()) if word in text]


@contextlib.contextmanager
def unsent() -> Iterator[Iterator[bytes]]:
    """A single request that is not sent: a handler that waits for it waits for ever."""
    end = threading.Event()

    def requests() -> Iterator[bytes]:
        end.wait(20)
        yield b""

    try:
        yield requests()
    finally:
        end.set()


@pytest.mark.parametrize("method", ["GetClientBundle", "UploadKeys", "Infer", "DeleteKeys"])
def test_a_stranger_is_turned_away_before_its_request_is_read(server: LocalServer, method: str) -> None:
    refused = metric(server, 'thex_refused_total{reason="unauthenticated"}')
    credentials = grpc.ssl_channel_credentials(server.authority.read_bytes())
    with grpc.secure_channel(server.target, credentials) as channel:
        call = channel.stream_stream(f"/thex.v1.Inference/{method}")
        for headers in ((), (("authorization", "Bearer thex_0123456789abcdef_a-wrong-secret"),)):
            with unsent() as requests, pytest.raises(grpc.RpcError) as caught:
                list(call(requests, timeout=10, metadata=headers))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.details().startswith("unauthenticated: this server knows its clients")
        with pytest.raises(grpc.RpcError) as unknown:
            list(channel.stream_stream("/thex.v1.Inference/Nothing")(iter([b""]), timeout=10))
        assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
    eventually(lambda: metric(server, 'thex_refused_total{reason="unauthenticated"}') == refused + 2)


@pytest.mark.parametrize(
    "method", ["thex.v1.Inference/Infer", "thex.v1.Inference/DeleteKeys", "grpc.health.v1.Health/Check"]
)
def test_a_request_that_does_not_come_holds_no_call(server: LocalServer, tokens: dict[str, str], method: str) -> None:
    headers = (("authorization", f"Bearer {tokens['alice']}"),)
    credentials = grpc.ssl_channel_credentials(server.authority.read_bytes())
    with grpc.secure_channel(server.target, credentials) as channel:
        call = channel.stream_stream(f"/{method}")
        with unsent() as requests, pytest.raises(grpc.RpcError) as late:
            list(call(requests, timeout=15, metadata=headers))
        with pytest.raises(grpc.RpcError) as none:
            list(call(iter([]), timeout=15, metadata=headers))
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert late.value.details().startswith("idle: nothing came whole")
    assert none.value.details() == "malformed: the call ended without a request"


def test_sigterm_says_not_serving_then_drains(bundle: Path, tmp_path: Path) -> None:
    settings = {"limits.notice_seconds": 1, "limits.drain_seconds": 20}
    with (
        tiny_server(bundle, tmp_path / "server", settings=settings) as server,
        tiny_client(server, tmp_path / "keys", retries=ONCE) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        label = client.classify(TEXT).label
        with stopped(worker_of(server)):
            running = threads.submit(client.classify, TEXT)
            eventually(lambda: metric(server, "thex_jobs_computing") == 1)
            os.kill(server.process_id, signal.SIGTERM)
            eventually(lambda: health(server) == health_pb2.HealthCheckResponse.NOT_SERVING, 1.0)
            assert health(server, "") == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(BusyError, match="draining"):
                list(client._connection.stream("Infer", query(client), 10))
        assert running.result(10).label == label
        eventually(
            lambda: not psutil.pid_exists(server.process_id) or psutil.Process(server.process_id).status() == "zombie"
        )


def test_a_key_directory_has_one_server(bundle: Path, tmp_path: Path) -> None:
    """A second one would recover, and so delete, what the first answers with. So is what cannot be served, in a line."""
    settings = {"key_directory": tmp_path / "keys"}
    with (
        tiny_server(bundle, tmp_path / "one", settings=settings) as server,
        tiny_client(server, tmp_path / "c") as client,
    ):
        client.prepare()
        with (
            pytest.raises(OSError, match="is the key directory of a server that runs"),
            tiny_server(bundle, tmp_path / "two", settings=settings),
        ):
            pytest.fail("a second server has the key directory of the first")
        assert client.classify(TEXT).label in client.labels
    with pytest.raises(OSError, match="is not a bundle") as caught, tiny_server(tmp_path / "no", tmp_path / "three"):
        pytest.fail("there is nothing to serve")
    assert "Traceback" not in str(caught.value)


def test_a_server_stops_although_nobody_reads_its_log_any_more(bundle: Path, tmp_path: Path) -> None:
    """Its parent, which read its output, was killed: each line of the log is then a broken pipe."""
    program = (
        "import sys, time; from pathlib import Path; from tests.services.tiny import tiny_server, worker_of\n"
        "with tiny_server(Path(sys.argv[1]), Path(sys.argv[2])) as server:\n"
        "    print(server.process_id, worker_of(server).pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(bundle), str(tmp_path / "server")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        front, worker = (psutil.Process(int(number)) for number in parent.stdout.readline().split())
        parent.kill()
    front.send_signal(signal.SIGTERM)
    gone, alive = psutil.wait_procs([front, worker], 20)
    assert {process.pid for process in gone} == {front.pid, worker.pid}, alive


def test_certificates_of_clients_are_asked_for_and_tell_them_apart(bundle: Path, tmp_path: Path) -> None:
    directory = tmp_path / "server"
    written = make_certificates(directory / "certificates", clients=("alice", "bob"))
    stranger = make_certificates(tmp_path / "strangers", clients=("alice",)).clients[0]
    settings = {"authentication": "mtls"}
    with tiny_server(bundle, directory, settings=settings) as server:
        clients = [
            tiny_client(server, tmp_path / pair[0].stem, identity=Identity(None, *pair)) for pair in written.clients
        ]
        alice, bob = clients
        assert alice.classify(TEXT).label == bob.classify(TEXT).label
        with pytest.raises(ServerError, match="unknown_key_set"):
            bob._connection.call("DeleteKeys", messages.DeleteKeysRequest(key_set=alice._stored_key_set()), 10)
        bob.delete_keys(everything=True)
        assert alice.classify(TEXT).label
        for identity in (Identity(None, *stranger), Identity()):
            with pytest.raises(UnreachableError):
                tiny_client(server, tmp_path / "other", identity=identity, timeouts=Timeouts(connect=1.0))
        for client in clients:
            client.close()


def test_the_same_query_twice_gives_other_bytes_and_the_same_numbers(alice: Client) -> None:
    request = query(alice)
    answers = []
    for _ in range(2):
        (*_, last) = alice._connection.stream("Infer", request, 10)
        answers.append(last.result.outputs[0].data)
    first, second = (alice.session.decrypt(alice._cache.secret(), 8, answer) for answer in answers)
    assert abs(first - second).max() < 1e-4
    same = sum(a == b for a, b in zip(answers[0][96:-32], answers[1][96:-32], strict=True))
    assert same < len(answers[0]) / 64  # one byte of 256 agrees by chance


def test_reflection_is_off_and_what_is_not_served_is_unimplemented(server: LocalServer, tokens: dict[str, str]) -> None:
    for path in ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/thex.v1.Inference/NoSuchMethod"):
        with channel(server) as open_channel, pytest.raises(grpc.RpcError) as caught:
            open_channel.unary_unary(path)(b"", timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
