"""Four clients ask while things break. Each ends with the right answer or a clear error, and nothing acknowledged is lost."""

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.client import Client, ClientError, Retries, RoomError, ServerError
from services.local import LocalServer
from services.server.refusals import REASONS
from tests.bundles import write_small_bundle
from tests.chaos.proxy import wire
from tests.services.tiny import (
    QUICK,
    TEXT,
    eventually,
    metric,
    stopped,
    tiny_client,
    tiny_server,
    worker_of,
    workers_of,
)

pytestmark = pytest.mark.chaos
CLIENTS = 4
PATIENT = Retries(attempts=40, first_seconds=0.1, longest_seconds=0.5, patience_seconds=120)
SETTINGS = {"limits.requests_per_client": 8, "limits.key_sets_per_client": 100, "limits.uploads_per_client": 8}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("chaos") / "bundle")


@pytest.fixture
def port() -> int:
    """One that no connection gets by chance: a client that retries on a port of its own range ends up connected to itself."""
    for number in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
    raise OSError("no port is free")


class Load:
    """Four clients that ask without end; their answers and errors."""

    def __init__(self, server: LocalServer, place: Path, retries: Retries = PATIENT) -> None:
        self.clients = [tiny_client(server, place / f"client-{n}", retries=retries) for n in range(CLIENTS)]
        for client in self.clients:
            client.prepare()
        self.right = self.clients[0].classify(TEXT).label
        self.answers = [0] * CLIENTS
        self.errors: list[ClientError] = []
        self.unforeseen: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                label = self.clients[number].classify(TEXT).label
            except ClientError as error:
                self.errors.append(error)
            except BaseException as error:
                self.unforeseen.append(error)
                return
            else:
                assert label == self.right
                self.answers[number] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(130)
        for client in self.clients:
            client.close()
        assert not self.unforeseen
        known = {*REASONS, "unavailable", "unreachable", "deadline_exceeded"}
        assert all(isinstance(error, ServerError) and error.reason in known for error in self.errors), self.errors

    def more_answers(self, each: int = 2, seconds: float = 60) -> None:
        """Every client gets so many more answers."""
        before = list(self.answers)
        eventually(lambda: all(now >= then + each for now, then in zip(self.answers, before, strict=True)), seconds)


def test_workers_are_killed_under_load(bundle: Path, tmp_path: Path) -> None:
    generator = random.Random(1)
    with tiny_server(bundle, tmp_path / "server", settings=SETTINGS) as server, Load(server, tmp_path) as load:
        for _ in range(4):
            load.more_answers()
            time.sleep(generator.random() * 0.1)
            worker_of(server).kill()
            eventually(lambda: len(workers_of(server)) == 1 and metric(server, "thex_workers_ready") == 1)
        load.more_answers()
        assert not load.errors  # the clients' patience was enough for all of it


def test_the_front_is_killed_in_the_middle_of_an_upload(bundle: Path, tmp_path: Path, port: int) -> None:
    """What was acknowledged is there after the restart, and the upload goes on from where it was."""
    generator = random.Random(2)
    told: set[int] = set()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(tiny_server(bundle, tmp_path / "server", port=port, settings=SETTINGS))
        client = stack.enter_context(tiny_client(server, tmp_path / "keys", retries=Retries(attempts=1)))
        secret = client._cache.secret()
        name = client._open_upload().key_set
        for _ in range(3):
            missing = {element: level for element, level in client.plan.keys.items() if element not in told}
            if len(missing) < 3:
                break
            deadly = generator.randrange(2, min(len(missing), 4))

            def progress(_phase: str, done: int, _total: int, at: int = deadly, pid: int = server.process_id) -> None:
                if done == at:
                    time.sleep(0.2)  # so that the keys before this one have arrived
                    os.kill(pid, signal.SIGKILL)

            client.on_progress = progress
            with pytest.raises(ServerError):
                client._send(secret, name, missing, {})
            server = stack.enter_context(tiny_server(bundle, tmp_path / "server", port=port, settings=SETTINGS))
            client.retries = PATIENT
            state = client.retries.run(client._open_upload)
            client.retries = Retries(attempts=1)
            assert state.key_set == name  # the set survived
            assert set(state.complete) > told  # and what had arrived did, before this time and before that
            told = set(state.complete)
        client.on_progress = lambda *_: None
        client.retries = PATIENT
        assert client.classify(TEXT).label
        assert client._stored_key_set() == name


def test_the_front_is_killed_and_restarted_under_load(bundle: Path, tmp_path: Path, port: int) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(tiny_server(bundle, tmp_path / "server", port=port, settings=SETTINGS))
        load = stack.enter_context(Load(first, tmp_path))
        names = [client._stored_key_set() for client in load.clients]
        load.more_answers()
        os.kill(first.process_id, signal.SIGKILL)
        stack.enter_context(tiny_server(bundle, tmp_path / "server", port=port, settings=SETTINGS))
        load.more_answers()
        assert [client._stored_key_set() for client in load.clients] == names  # no key was sent twice


class FileSizeLimit:
    """No file of the server's front grows beyond 4000 bytes while the disk is full: what anyone may do to a process."""

    def __init__(self, keys: Path) -> None:
        self._keys = keys

    @contextlib.contextmanager
    def full(self, server: LocalServer) -> Iterator[None]:
        """For the length of the block."""
        before = resource.prlimit(server.process_id, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process_id, resource.RLIMIT_FSIZE, (4000, before[1]))
        try:
            yield
        finally:
            resource.prlimit(server.process_id, resource.RLIMIT_FSIZE, before)

    def close(self) -> None:
        """Nothing was set up."""


class SmallFileSystem:
    """The keys' directory is a file system of its own, which has 8 kB left while it is full. Mounting takes root."""

    def __init__(self, keys: Path) -> None:
        self._keys = keys
        keys.mkdir(parents=True, mode=0o700)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "thex-chaos", str(keys)],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self._keys)], check=True)

    @contextlib.contextmanager
    def full(self, _server: LocalServer) -> Iterator[None]:
        """For the length of the block."""
        self._resize(shutil.disk_usage(self._keys).used + 8192)
        try:
            yield
        finally:
            self._resize(64 << 20)

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "-l", str(self._keys)], check=True)


@pytest.mark.parametrize("kind", [FileSizeLimit, SmallFileSystem])
def test_the_disk_is_full_under_load(
    bundle: Path, tmp_path: Path, kind: type[FileSizeLimit] | type[SmallFileSystem]
) -> None:
    with (
        contextlib.closing(kind(tmp_path / "server" / "keys")) as disk,
        tiny_server(bundle, tmp_path / "server", settings=SETTINGS) as server,
        Load(server, tmp_path) as load,
    ):
        load.more_answers()
        with tiny_client(server, tmp_path / "late", retries=Retries(attempts=1)) as late:
            with disk.full(server):
                with pytest.raises(RoomError, match="disk_full") as caught:
                    late.prepare()
                assert caught.value.retry_seconds is not None
                load.more_answers()  # those whose keys are there notice nothing
            kept = late._stored_key_set()
            late.retries = QUICK
            assert late.classify(TEXT).label == load.right
            assert not kept or late._stored_key_set() == kept
        assert not load.errors


@pytest.mark.parametrize("years", [30, -30])
def test_the_clock_jumps_under_load(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    """Keys live for an hour after their last use by the server's uptime: a wall clock set anew takes none away."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    monkeypatch.setenv("THEX_TEST_CLOCK_OFFSET", str(offset))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'clock'}:{Path(__file__).parents[2]}")
    settings = {**SETTINGS, "limits.key_store_seconds": 3600, "limits.sweep_seconds": 0.1}
    with (
        tiny_server(bundle, tmp_path / "server", settings=settings) as server,
        Load(server, tmp_path) as load,
        tiny_client(server, tmp_path / "idle", retries=PATIENT) as idle,  # the first to lose its keys to a wall clock
    ):
        idle.prepare()
        clients = [*load.clients, idle]
        names = [client._stored_key_set() for client in clients]
        load.more_answers()
        offset.write_text(str(years * 365 * 86400))
        time.sleep(3)  # the server looks for old keys every second
        load.more_answers()
        jumped = time.gmtime(time.time() + years * 365 * 86400)
        assert f'"{time.strftime("%Y-%m", jumped)}' in (tmp_path / "server" / "lines").read_text()
        assert idle.classify(TEXT).label == load.right
        offset.write_text("0")
        time.sleep(2)
        load.more_answers()
        assert idle.classify(TEXT).label == load.right
        assert [client._stored_key_set() for client in clients] == names
        assert metric(server, "thex_key_sets_removed_total") == 0
    assert not load.errors


def test_the_connection_is_cut_at_a_random_chunk(bundle: Path, tmp_path: Path) -> None:
    generator = random.Random(3)
    with (
        tiny_server(bundle, tmp_path / "server", settings=SETTINGS) as server,
        wire(server.target) as line,
        Client(line.target, tmp_path / "keys", server.authority, allow_insecure_test=True, retries=PATIENT) as client,
    ):
        whole = client.key_bytes
        client.retries = Retries(attempts=1)
        while line.cuts < 4:
            line.cut_at = line.forwarded + generator.randrange(2000, whole // 4)
            with pytest.raises(ServerError):
                client.prepare()
        client.retries = PATIENT
        assert client.classify(TEXT).label
        assert line.forwarded < 2 * whole + (1 << 20)  # it went on each time; it did not begin anew


def test_the_server_is_stopped_and_another_started_under_load(bundle: Path, tmp_path: Path, port: int) -> None:
    settings = {**SETTINGS, "limits.notice_seconds": 0.5, "limits.drain_seconds": 10}
    with contextlib.ExitStack() as stack:
        with tiny_server(bundle, tmp_path / "server", port=port, settings=settings) as first:
            load = stack.enter_context(Load(first, tmp_path))
            load.more_answers()
            os.kill(first.process_id, signal.SIGTERM)
            time.sleep(1)
        stack.enter_context(tiny_server(bundle, tmp_path / "server", port=port, settings=settings))
        load.more_answers()
        assert not load.errors


def test_keys_with_which_workers_crash_are_not_tried_for_ever(bundle: Path, tmp_path: Path) -> None:
    with (
        tiny_server(bundle, tmp_path / "server", settings=SETTINGS) as server,
        tiny_client(server, tmp_path / "honest") as honest,
        tiny_client(server, tmp_path / "guilty") as guilty,
    ):
        guilty.prepare()
        guilty.retries = Retries(attempts=1)
        for _ in range(3):
            worker = worker_of(server)
            with stopped(worker), ThreadPoolExecutor(1) as threads:
                lost = threads.submit(guilty.classify, TEXT)
                eventually(lambda: metric(server, "thex_jobs_computing") == 1)
                os.kill(worker.pid, signal.SIGSEGV)
                os.kill(worker.pid, signal.SIGCONT)
                with pytest.raises(ServerError, match="worker_restarted"):
                    lost.result(30)
            eventually(lambda: metric(server, "thex_workers_ready") == 1)
        with pytest.raises(ServerError, match="quarantined: this key set"):
            guilty.classify(TEXT)
        assert metric(server, 'thex_worker_restarts_total{cause="signal-11"}') == 3
        assert honest.classify(TEXT).label
        guilty.delete_keys()
        assert guilty.classify(TEXT).label  # with a new key set


@pytest.mark.slow
def test_a_hundred_sessions_leave_nothing_behind(tmp_path: Path) -> None:
    from tests.chaos.soak import soak

    samples = list(soak(100, tmp_path))
    settled, last = samples[3], samples[-1]
    assert last.front_memory_bytes < 1.1 * settled.front_memory_bytes
    assert last.worker_memory_bytes < 1.1 * settled.worker_memory_bytes
    assert (last.front_files, last.front_threads) == (settled.front_files, settled.front_threads)
    assert (last.worker_files, last.worker_threads) == (settled.worker_files, settled.worker_threads)
