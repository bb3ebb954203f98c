"""What a client sees: the real client against the real server over loopback TLS, each in processes of its own."""

import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.client_process import ClientProcess
from benchmarks.machine import machine
from benchmarks.memory import own_bytes, peak_bytes, processes_below
from benchmarks.report import Report, Row, row
from benchmarks.workloads import text_of
from he_runtime.bundle import Bundle
from services.local import local_server

PHASES = ("encrypt", "round_trip", "server", "decrypt")


def measure(
    bundle: Path,
    buckets: tuple[int, ...],
    queries: int,
    threads: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """`rows`: starting, keys, and for each bucket the first and last query of a warm server and medians of their phases.

    `seconds_per_query`, whole queries from text to label, is the median over all but the first of the first bucket named.
    """
    unknown = set(buckets) - set(Bundle.open(bundle).config.buckets)
    if unknown:
        raise ValueError(
            f"buckets {sorted(unknown)} are not among this bundle's {list(Bundle.open(bundle).config.buckets)}"
        )
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="thex-bench-") as name, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        directory = Path(name)
        on_progress("starting the server")
        started = time.perf_counter()
        with local_server(bundle, threads=threads, cache_directory=directory / "cache") as server:
            starting = time.perf_counter() - started
            processes = list(processes_below(server.process_id))
            on_progress("making and uploading keys")
            keys = pool.submit(_prepare, server.target, server.authority, directory / "keys").result()
            with ClientProcess(
                keys["plan"], directory / "other"
            ) as other:  # not in the client's process, whose memory counts
                making = row("keys made, not sent", other.make_keys(directory / "unsent"))
            shutil.rmtree(directory / "unsent")
            rows = [row("start of the server, nothing cached", starting), *keys["rows"], making]
            by_bucket = {}
            for bucket in buckets:
                on_progress(f"{queries} queries of bucket {bucket}")
                arguments = (server.target, server.authority, directory / "keys", bucket, queries)
                answers = pool.submit(_query, *arguments).result()
                rows += answers.pop("rows")
                by_bucket[str(bucket)] = answers
            with_one_client = sum(own_bytes(process) for process in processes)
            server_peak = sum(peak_bytes(process) for process in processes)
        client_peak = pool.submit(peak_bytes).result()
    return {
        "seconds_per_query": by_bucket[str(buckets[0])]["seconds"],
        "queries": queries,
        "threads": threads,
        "keys": len(keys["plan"].keys),
        "bytes": {"keys": keys["bytes"], "server_memory_with_one_client": with_one_client},
        "buckets": by_bucket,
        "peak_memory_bytes": {"client": client_peak, "server": server_peak},
        "rows": rows,
        "machine": machine(),
    }


def _prepare(target: str, authority: Path, directory: Path) -> Report:
    """Make and upload keys; then connect again with all of it there."""
    from services.client.client import Client

    rows: list[Row] = []
    with Client(target, directory, authority) as client:
        started = time.perf_counter()
        client.prepare()
        rows.append(row("keys made and uploaded, loopback", time.perf_counter() - started))
        key_bytes, plan = client.key_bytes, client.plan
    started = time.perf_counter()
    with Client(target, directory, authority) as client:
        client.prepare()
    rows.append(row("connected again, keys already there", time.perf_counter() - started))
    return {"rows": rows, "plan": plan, "bytes": key_bytes}


def _query(target: str, authority: Path, directory: Path, bucket: int, queries: int) -> Report:
    """Queries one after the other, from text to label."""
    from services.client.client import Client

    with Client(target, directory, authority) as client:
        client.prepare()
        text = text_of(lambda text: client.tokenise(text)[0], bucket)
        whole, phases = [], []
        for _ in range(queries):
            started = time.perf_counter()
            result = client.classify(text)
            whole.append(time.perf_counter() - started)
            phases.append(result.timings)
    if result.bucket != bucket:
        raise ValueError(f"the text of {result.tokens} tokens went into bucket {result.bucket}, not {bucket}")
    median = statistics.median(whole[1:] or whole)
    where = f"bucket {bucket}"
    return {
        "rows": [
            row(f"query 1, {where}", whole[0]),
            *([row(f"query {queries}, {where}", whole[-1])] if queries > 1 else []),
            row(f"query, {where}", median),
            *(row(f"{phase}, {where}", statistics.median(t[phase] for t in phases[1:] or phases)) for phase in PHASES),
        ],
        "seconds": median,
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
    }
