"""`thex demo`: everything on one machine in one command."""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from services.cli.common import JsonOption, bundle_or_shipped, console, error_console, one_line_errors, print_json

SENTENCES = (
    "a gripping, beautifully shot film",
    "two hours of my life that I will never get back",
    "the jokes are stale and the story makes no sense",
    "warm, funny and surprisingly moving",
)


@one_line_errors
def demo(
    text: Annotated[str | None, typer.Argument(help="The text to classify; a handful of its own without it.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the server.", min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """Start a server, make keys, encrypt, infer, decrypt; with times, bytes, and the plaintext model's answer beside it."""
    import numpy as np

    from he_runtime.bundle import Bundle
    from he_runtime.plain_model import logits as plain_logits
    from services.client.client import Client
    from services.local import local_server

    directory = bundle_or_shipped(bundle)
    opened = Bundle.open(directory)
    if opened.config.task.kind != "classification" or opened.config.task.pair:
        raise ValueError(f"{directory} is for {opened.config.task.name}: the demo classifies single texts")
    weights = opened.weights()
    seconds: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="thex-client-") as keys,
        Progress(console=error_console, transient=True, disable=as_json) as bar,
    ):
        task = bar.add_task("starting the server (plans, compiles)", total=None)
        started = time.perf_counter()
        with local_server(directory, threads=threads) as server:
            seconds["start_server"] = time.perf_counter() - started

            def show(phase: str, done: int, total: int) -> None:
                bar.update(
                    task,
                    description={"keys": "making and uploading keys", "infer": "computing, encrypted"}[phase],
                    completed=done,
                    total=total,
                )

            with Client(server.target, Path(keys), server.authority, on_progress=show) as client:
                started = time.perf_counter()
                client.prepare()
                seconds["keys"] = time.perf_counter() - started
                for sentence in (text,) if text is not None else SENTENCES:
                    result = client.classify(sentence)
                    plain = plain_logits(weights, client.model.embed(*client.tokenise(sentence)))
                    rows.append(
                        {
                            "text": sentence,
                            "label": result.label,
                            "plain_label": client.model.config.task.labels[int(plain.argmax())],
                            "probabilities": result.probabilities,
                            "logit_error": float(np.abs(np.array(result.logits) - plain).max()),
                            "seconds": {**seconds, **result.timings},
                            "bytes": {
                                "keys": client.key_bytes,
                                "query_up": result.bytes_up,
                                "query_down": result.bytes_down,
                            },
                        }
                    )
    if as_json:
        print_json(rows[0] if text is not None else {"sentences": rows})
        return
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    console.print(
        f"server ready in {first['seconds']['start_server']:.1f} s; keys made and uploaded in {first['seconds']['keys']:.1f} s "
        f"({first['bytes']['keys'] / 1e6:.0f} MB); a query is {first['bytes']['query_up'] / 1e6:.2f} MB up, "
        f"{first['bytes']['query_down'] / 1e6:.2f} MB down",
        soft_wrap=True,
    )
    table = Table("text", "encrypted", "plaintext model", "logit error", "encrypt s", "server s", "decrypt s")
    for row in rows:
        seconds = row["seconds"]
        probability = row["probabilities"][row["label"]]
        table.add_row(
            escape(row["text"]),
            f"{escape(row['label'])} {probability:.3f}",
            escape(row["plain_label"]),
            f"{row['logit_error']:.1e}",
            f"{seconds['encrypt']:.2f}",
            f"{seconds['server']:.1f}",
            f"{seconds['decrypt']:.2f}",
        )
    console.print(table)
