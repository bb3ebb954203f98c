"""`thex bench`: figures, measured through the real client and server."""

import csv
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, error_console, one_line_errors, print_json

app = typer.Typer(no_args_is_help=True, help="Benchmarks.")


@app.callback()
def group() -> None:
    """Figures measured through the real client and server."""


@app.command("agreement")
@one_line_errors
def agreement(
    data: Annotated[Path, typer.Option(help="Directory with SST-2's dev.tsv.")],
    limit: Annotated[int, typer.Option(help="The first so many sentences.", min=1)] = 30,
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the server.", min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Encrypted answers against the plain replaced model, sentence by sentence."""
    import numpy as np

    from benchmarks.machine import machine
    from he_runtime.bundle import Bundle
    from he_runtime.plain_model import logits as plain_logits
    from services.client.client import Client
    from services.local import local_server

    directory = bundle_or_shipped(bundle)
    weights = Bundle.open(directory).weights()
    sentences = _sentences(data / "dev.tsv", limit)
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="thex-client-") as keys,
        local_server(directory, threads=threads) as server,
        Client(server.target, Path(keys), server.authority) as client,
    ):
        client.prepare()
        for number, (sentence, truth) in enumerate(sentences, 1):
            started = time.perf_counter()
            result = client.classify(sentence)
            seconds = time.perf_counter() - started
            plain = plain_logits(weights, client.model.embed(*client.tokenise(sentence)))
            labels = client.model.config.task.labels
            rows.append(
                {
                    "agree": result.label == labels[int(plain.argmax())],
                    "right": result.label == labels[truth],
                    "logit_error": float(np.abs(np.array(result.logits) - plain).max()),
                    "bucket": result.bucket,
                    "seconds": seconds,
                }
            )
            if not as_json:
                error_console.print(f"{number}/{len(sentences)} {seconds:.1f} s", end="\r")
    report = {
        "count": len(rows),
        "agree": sum(row["agree"] for row in rows),
        "right": sum(row["right"] for row in rows),
        "max_logit_error": max(row["logit_error"] for row in rows),
        "seconds_per_query": statistics.median(row["seconds"] for row in rows),
        "seconds_by_bucket": {
            bucket: statistics.median(row["seconds"] for row in rows if row["bucket"] == bucket)
            for bucket in sorted({row["bucket"] for row in rows})
        },
        "machine": machine(),
        "rows": rows,
    }
    if as_json:
        print_json(report)
    else:
        console.print({name: value for name, value in report.items() if name != "rows"})


def _sentences(path: Path, limit: int) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if reader.fieldnames != ["sentence", "label"]:
            raise ValueError(f"{path} has the header {reader.fieldnames}; expected SST-2's: sentence, label")
        rows = [(row["sentence"].strip(), int(row["label"])) for row in reader]
    return rows[:limit]


@app.command("kernels")
@one_line_errors
def kernels(
    repeats: Annotated[int, typer.Option(help="Timed runs of each operation; the median counts.", min=3)] = 9,
    as_json: JsonOption = False,
) -> None:
    """Operations of our evaluator beside SEAL's, alternating in one run, one thread each."""
    from rich.table import Table

    from benchmarks.kernels import measure

    report = measure(repeats=repeats)
    if as_json:
        print_json(report)
        return
    table = Table("operation", "ours, ms", "SEAL, ms", "ratio")
    for row in cast("list[dict[str, Any]]", report["rows"]):
        table.add_row(
            row["name"], f"{1e3 * row['seconds']:.2f}", f"{1e3 * row['seal_seconds']:.2f}", f"{row['ratio']:.1f}"
        )
    console.print(table)
    console.print(report["machine"])


@app.command("model")
@one_line_errors
def model(
    bucket: Annotated[int, typer.Option(help="Tokens: one of the bundle's buckets.")] = 32,
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed queries; the median counts.", min=1)] = 3,
    as_json: JsonOption = False,
) -> None:
    """A whole query on the evaluator, by stage and operation, beside the planner's estimate; one and two threads."""
    from rich.table import Table

    from benchmarks.model import measure
    from he_runtime.bundle import Bundle

    opened = Bundle.open(bundle_or_shipped(bundle))
    if bucket not in opened.config.buckets:
        raise ValueError(f"bucket {bucket} is not one of this bundle's {list(opened.config.buckets)}")
    report = measure(opened, bucket, repeats=repeats)
    if as_json:
        print_json(report)
        return
    table = Table("what", "measured, s", "estimated, s")
    for row in cast("list[dict[str, Any]]", report["rows"]):
        estimate = row.get("estimated_seconds")
        table.add_row(row["name"], f"{row['seconds']:.3f}", "" if estimate is None else f"{estimate:.3f}")
    console.print(table)
    console.print({name: value for name, value in report.items() if name != "rows"})
