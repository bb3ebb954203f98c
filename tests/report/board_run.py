"""A minute of a real server's life, scraped every half second, and pictured panel by panel as the Grafana board shows it."""

import contextlib
import csv
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from prometheus_client.parser import text_string_to_metric_families

from services._pb import inference_pb2 as messages
from services.client import ClientError
from services.local import LocalServer
from tests.bundles import write_small_bundle
from tests.services.tiny import TEXT, tiny_client, tiny_server, worker_of

SCRAPE_SECONDS = 0.5
Series = dict[str, list[float]]
"""Sample (name with labels) -> its value at every scrape."""


def scrape(server: LocalServer) -> dict[str, float]:
    """All samples now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f" {value}" for key, value in sorted(sample.labels.items()) if key != "le"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def live(place: Path, seconds: float) -> tuple[list[float], Series]:
    """Four clients ask, one sends garbage, a worker is killed half-way."""
    stop = threading.Event()
    settings = {"limits.key_sets_per_client": 100, "limits.requests_per_client": 8, "limits.key_store_bytes": 3 << 20}
    times: list[float] = []
    rows: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            tiny_server(write_small_bundle(place / "bundle"), place / "server", settings=settings)
        )
        threads = [threading.Thread(target=_ask, args=(server, place / f"client-{n}", stop)) for n in range(4)]
        threads.append(threading.Thread(target=_attack, args=(server, place / "attacker", stop)))
        for thread in threads:
            thread.start()
        started, killed = time.monotonic(), False
        while (now := time.monotonic() - started) < seconds:
            times.append(now)
            rows.append(scrape(server))
            if not killed and now > seconds / 2:
                killed = True
                for worker in _workers(server):
                    worker.kill()
            time.sleep(SCRAPE_SECONDS)
        stop.set()
        for thread in threads:
            thread.join()
    names = sorted({name for row in rows for name in row})
    return times, {name: [row.get(name, 0.0) for row in rows] for name in names}


def _workers(server: LocalServer) -> Iterator[object]:
    yield worker_of(server)


def _ask(server: LocalServer, keys: Path, stop: threading.Event) -> None:
    with tiny_client(server, keys) as client:
        while not stop.is_set():
            with contextlib.suppress(ClientError):
                for _ in range(random.randrange(100, 200)):
                    client.classify(TEXT)
                    if stop.wait(0.1):
                        return
                client.delete_keys()  # and make its way back with the next query


def _attack(server: LocalServer, keys: Path, stop: threading.Event) -> None:
    """Refusals of several reasons."""
    with tiny_client(server, keys) as client:
        digest = client.plan.program_digest
        while not stop.is_set():
            for name, data in (("f" * 32, b"THEXWIRE"), (client._open_upload().key_set, b"THEXSECR"), ("", b"")):
                chunk = messages.KeyChunk(key_set=name, galois_element=0, offset=0, data=data)
                with contextlib.suppress(ClientError):
                    client._connection.call("UploadKeys", iter([chunk] if data else []), 5)
            with contextlib.suppress(ClientError):
                client._connection.call("OpenUpload", messages.OpenUploadRequest(program_digest=digest[::-1]), 5)
            stop.wait(0.4)


def picture(times: list[float], series: Series, path: Path) -> None:
    """The board's panels; the data is saved beside the picture."""
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", *series])
        writer.writerows([round(now, 2), *(values[i] for values in series.values())] for i, now in enumerate(times))
    panels = (
        ("Calls a second by method and code", _rates(times, series, "thex_rpc_duration_seconds_count")),
        ("Query, mean seconds", _means(series, "thex_rpc_duration_seconds", "OK Infer")),
        ("Stages of a query, mean seconds", _means(series, "thex_stage_duration_seconds", "")),
        ("Queue and workers", _values(series, ("thex_queue_length", "thex_jobs_computing", "thex_workers_ready"))),
        ("Refusals a second by reason", _rates(times, series, "thex_refused_total")),
        (
            "Bytes received and sent a second",
            _rates(times, series, "thex_received_bytes_total", "thex_sent_bytes_total"),
        ),
        ("Key store, bytes", _values(series, ("thex_key_store_bytes", "thex_key_store_budget_bytes"))),
        ("Key sets that went", _values(series, ("thex_key_sets_removed_total",))),
        (
            "Workers restarted, inputs quarantined",
            _values(series, ("thex_worker_restarts_total", "thex_quarantined_total")),
        ),
        ("Memory of the front, bytes", _values(series, ("process_resident_memory_bytes",))),
    )
    figure, axes = plt.subplots(5, 2, figsize=(13, 15), layout="constrained")
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for label, values in lines.items():
            axis.plot(times, values, label=label, linewidth=1.2)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if lines:
            axis.legend(fontsize=7, loc="upper left")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _of(series: Series, prefix: str) -> dict[str, list[float]]:
    return {name: values for name, values in series.items() if name == prefix or name.startswith(prefix + " ")}


def _values(series: Series, prefixes: tuple[str, ...]) -> dict[str, list[float]]:
    return {name.removeprefix("thex_"): values for prefix in prefixes for name, values in _of(series, prefix).items()}


def _rates(times: list[float], series: Series, *prefixes: str, window: int = 6) -> dict[str, list[float]]:
    lines = {}
    for prefix in prefixes:
        for name, values in _of(series, prefix).items():
            label = name.removeprefix(prefix).strip() or prefix
            if len(prefixes) > 1:
                label = f"{prefix.split('_')[1]} {label}"
            rate = [0.0]
            for i in range(1, len(values)):
                before = max(0, i - window)
                rate.append((values[i] - values[before]) / (times[i] - times[before]))
            if max(rate) > 0:
                lines[label] = rate
    return lines


def _means(series: Series, prefix: str, only: str, window: int = 6) -> dict[str, list[float]]:
    lines = {}
    for name, counts in _of(series, f"{prefix}_count").items():
        label = name.removeprefix(f"{prefix}_count").strip()
        if only and label != only:
            continue
        sums = series[f"{prefix}_sum {label}".strip()]
        mean = [float("nan")]
        for i in range(1, len(counts)):
            before = max(0, i - window)
            calls = counts[i] - counts[before]
            mean.append((sums[i] - sums[before]) / calls if calls else float("nan"))
        lines[label] = mean
    return lines
