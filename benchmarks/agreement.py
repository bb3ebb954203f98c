"""Encrypted answers against the plain replaced model, through the real client and server, sentence by sentence."""

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from benchmarks.report import Report, Row
from he_runtime.bundle import Bundle
from he_runtime.plain_model import logits as plain_logits
from services.client.client import Client
from services.local import local_server


def measure(
    bundle: Path, data: Path, limit: int, threads: int, on_progress: Callable[[str], None] = lambda _: None
) -> Report:
    """The first `limit` sentences of `data`/dev.tsv."""
    weights = Bundle.open(bundle).weights()
    sentences = _sentences(data / "dev.tsv", limit)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="thex-client-") as keys,
        local_server(bundle, threads=threads) as server,
        Client(server.target, Path(keys), server.authority) as client,
    ):
        client.prepare()
        labels = client.model.config.task.labels
        for number, (sentence, truth) in enumerate(sentences, 1):
            started = time.perf_counter()
            result = client.classify(sentence)
            seconds = time.perf_counter() - started
            plain = plain_logits(weights, client.model.embed(*client.tokenise(sentence)))
            rows.append(
                {
                    "name": f"sentence {number}",
                    "agree": result.label == labels[int(plain.argmax())],
                    "right": result.label == labels[truth],
                    "logit_error": float(np.abs(np.array(result.logits) - plain).max()),
                    "bucket": result.bucket,
                    "seconds": seconds,
                }
            )
            on_progress(f"{number}/{len(sentences)} {seconds:.1f} s")
    return {
        "count": len(rows),
        "agree": sum(item["agree"] for item in rows),
        "right": sum(item["right"] for item in rows),
        "max_logit_error": max(item["logit_error"] for item in rows),
        "seconds_per_query": statistics.median(item["seconds"] for item in rows),
        "seconds_by_bucket": {
            str(bucket): statistics.median(item["seconds"] for item in rows if item["bucket"] == bucket)
            for bucket in sorted({item["bucket"] for item in rows})
        },
        "machine": machine(),
        "rows": rows,
    }


def _sentences(path: Path, limit: int) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if reader.fieldnames != ["sentence", "label"]:
            raise ValueError(f"{path} has the header {reader.fieldnames}; expected SST-2's: sentence, label")
        rows = [(line["sentence"].strip(), int(line["label"])) for line in reader]
    return rows[:limit]
