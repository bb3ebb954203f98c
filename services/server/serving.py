"""A server's life: start workers, listen, watch over itself, and stop without losing what runs."""

import asyncio
import contextlib
import fcntl
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2
from prometheus_client import start_http_server

from services._pb import inference_pb2
from services.health_check import SERVICE_NAME
from services.server.calls import Desk
from services.server.front import Front
from services.server.handlers import service_handler
from services.server.health import Health
from services.server.identity import Authenticator, TokenFile
from services.server.key_store import KeyStore
from services.server.metrics import Metrics
from services.server.model import ServedModel
from services.server.settings import Settings
from services.server.tls import Certificates
from services.server.traces import Tracer
from services.server.worker_entry import WorkerSettings
from services.server.worker_pool import WorkerPool

log = structlog.get_logger()
WATCH_SECONDS = 1.0


async def serve(
    settings: Settings, *, on_ready: Callable[[int, int | None], None] = lambda _port, _metrics: None
) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready(port, metrics port)` is called once queries are taken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics()
    pool = WorkerPool(
        _worker_settings(settings),
        settings.workers,
        settings.limits,
        on_restart=lambda cause: metrics.restarts.labels(cause).inc(),
        on_killed_by=lambda job, cause: front.blame(job, cause),  # noqa: PLW0108  (there is no front yet)
    )
    with _key_directory(settings) as directory:
        async with _running(pool) as model:
            metrics.describe(model.binding.program_digest)
            store = KeyStore(
                directory,
                model,
                settings.limits,
                on_removed=lambda _name, reason: metrics.removed.labels(reason).inc(),
            )
            tracer = Tracer.from_environment() if settings.traces else Tracer()
            desk = Desk(Authenticator(settings.authentication, TokenFile(settings.tokens)), metrics, tracer)
            front = Front(model, store, pool, desk, settings.limits)
            health = Health(settings.limits.health_watches, settings.limits.idle_seconds)
            server = _server(settings, front, health)
            port = _listen(server, settings)
            await server.start()
            watch = asyncio.ensure_future(_watch(front, health))
            metrics_port = _serve_metrics(settings.metrics_address, metrics)
            log.info("serving", port=port, program=model.binding.program_digest[:16], **settings.printable())
            await health.say(alive=True, ready=True)
            on_ready(port, metrics_port)
            await stop.wait()
            log.info("draining", computing=pool.computing, waiting=pool.waiting)
            front.draining = True
            watch.cancel()
            await health.say(alive=True, ready=False)
            await asyncio.sleep(settings.limits.notice_seconds)
            await server.stop(grace=settings.limits.drain_seconds)
            await front.on_disk(store.close)
        log.info("stopped")


@contextlib.asynccontextmanager
async def _running(pool: WorkerPool) -> AsyncIterator[ServedModel]:
    """The pool's workers for the length of the block: a front that ends, however it ends, leaves none behind."""
    try:
        yield await pool.start()
    finally:
        await pool.stop()


def _worker_settings(settings: Settings) -> WorkerSettings:
    limits = settings.limits
    return WorkerSettings(
        str(settings.bundle),
        settings.threads,
        limits.worker_memory_bytes,
        limits.worker_files,
        int(limits.request_seconds * settings.threads) + 1,
        limits.loaded_key_sets,
        None if settings.cache_directory is None else str(settings.cache_directory),
        settings.insecure_test_ring,
    )


@contextlib.contextmanager
def _key_directory(settings: Settings) -> Iterator[Path]:
    if settings.key_directory is not None:
        settings.key_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (settings.key_directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{settings.key_directory} is the key directory of a server that runs: its clients' keys would be lost; "
                    "end it, or give another with --key-directory"
                ) from None
            yield settings.key_directory
        return
    with tempfile.TemporaryDirectory(prefix="thex-keys-") as temporary:
        yield Path(temporary) / "keys"


def _server(settings: Settings, front: Front, health: Health) -> Any:
    limits = settings.limits
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.max_send_message_length", limits.message_bytes),
            ("grpc.max_metadata_size", limits.metadata_bytes),
            ("grpc.absolute_max_metadata_size", 2 * limits.metadata_bytes),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, and is told so
        ],
        maximum_concurrent_rpcs=limits.concurrent_calls,
    )
    server.add_generic_rpc_handlers(
        (
            service_handler(inference_pb2.DESCRIPTOR.services_by_name["Inference"], front),
            service_handler(health_pb2.DESCRIPTOR.services_by_name["Health"], health),
        )
    )
    if settings.reflection:
        from grpc_reflection.v1alpha import reflection

        reflection.enable_server_reflection((SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def _listen(server: Any, settings: Settings) -> int:
    try:
        if settings.certificates is None:
            return int(server.add_insecure_port(settings.address))
        certificates = Certificates(settings.certificates, settings.authentication == "mtls")
        return int(server.add_secure_port(settings.address, certificates.credentials()))
    except RuntimeError:
        raise OSError(f"cannot listen on {settings.address}; is another server there?") from None


def _serve_metrics(address: str | None, metrics: Metrics) -> int | None:
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    server, _ = start_http_server(int(port), host.strip("[]") or "127.0.0.1", metrics.registry)
    return int(server.server_port)


async def _watch(front: Front, health: Health) -> None:
    """Keep readiness, gauges and the store's clock true."""
    metrics, store, pool = front.metrics, front.store, front.pool
    metrics.key_budget.set(front.limits.key_store_bytes)
    metrics.queue.set_function(lambda: pool.waiting)
    metrics.computing.set_function(lambda: pool.computing)
    metrics.workers.set_function(lambda: pool.ready)
    swept = 0.0
    while True:
        try:
            pool.replace_ended()
            free = await front.on_disk(store.free_bytes)
            ready = pool.ready > 0 and free >= front.limits.disk_reserve_bytes
            await health.say(alive=True, ready=ready)
            metrics.serving.set(ready)
            metrics.free.set(free)
            metrics.key_sets.set(await front.on_disk(store.index.count))
            metrics.key_bytes.set(await front.on_disk(store.index.reserved_bytes))
            if swept == 0.0 or swept >= front.limits.sweep_seconds:
                await front.on_disk(store.sweep)
                swept = 0.0
        except Exception as error:  # a watch that ended would leave readiness wrong for ever
            log.error("watch", kind=type(error).__name__)
        swept += WATCH_SECONDS
        await asyncio.sleep(WATCH_SECONDS)
