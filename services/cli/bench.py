"""`thex bench`: figures, measured on the real thing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, error_console, one_line_errors, print_json

if TYPE_CHECKING:
    from benchmarks.workloads import Workload

app = typer.Typer(no_args_is_help=True, help="Benchmarks.")
MarkdownOption = Annotated[Path | None, typer.Option(help="Write the report as Markdown to this file too.")]
BucketOption = Annotated[int, typer.Option(help="Tokens: one of the model's buckets.", min=1)]
RandomLayersOption = Annotated[
    int | None, typer.Option(help="So many layers of random weights instead of a bundle.", min=1)
]
RandomHeadsOption = Annotated[
    int | None, typer.Option(help="Heads, with --random-layers; of 64 features by default.", min=1)
]
RandomEmbeddingOption = Annotated[bool, typer.Option(help="A sentence encoder, with --random-layers.")]
RandomHiddenOption = Annotated[int, typer.Option(help="Features of a token, with --random-layers.", min=2)]
BundleOption = Annotated[Path | None, typer.Option(help="Bundle directory; the shipped SST-2 model by default.")]


@app.callback()
def group() -> None:
    """Figures measured on the real thing; benchmarks/README.md says how to read them."""


@app.command("agreement")
@one_line_errors
def agreement(
    data: Annotated[Path, typer.Option(help="Directory with SST-2's dev.tsv.")],
    limit: Annotated[int, typer.Option(help="The first so many sentences.", min=1)] = 30,
    bundle: BundleOption = None,
    threads: Annotated[int, typer.Option(help="Threads of the server.", min=1)] = 2,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encrypted answers against the plain replaced model, sentence by sentence."""
    from benchmarks.agreement import measure

    report = measure(bundle_or_shipped(bundle), data, limit, threads, _notes(as_json))
    _show(f"Agreement on {report['count']} sentences", report, markdown, as_json)


@app.command("kernels")
@one_line_errors
def kernels(
    repeats: Annotated[int, typer.Option(help="Timed runs of each operation; the median counts.", min=3)] = 9,
    ring_degree: Annotated[int, typer.Option(help="Ring in which SEAL is beside ours.")] = 32768,
    primes: Annotated[list[int] | None, typer.Option(help="Primes to measure at; repeatable (20, 10, 5).")] = None,
    every_ring: Annotated[bool, typer.Option(help="Transforms at all rings; ours alone at 16384 and 65536.")] = True,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Operations of our evaluator beside SEAL's, taking turns in one run, one thread each."""
    from benchmarks.kernels import PRIMES, measure

    counts = tuple(primes) if primes else PRIMES
    if min(counts) < 2:
        raise ValueError(f"--primes {min(counts)}: a rescale needs at least 2 primes")
    report = measure(ring_degree, counts, repeats, every_ring=every_ring, on_progress=_notes(as_json))
    _show("Kernels", report, markdown, as_json)


@app.command("model")
@one_line_errors
def model(
    bucket: BucketOption = 32,
    bundle: BundleOption = None,
    random_layers: RandomLayersOption = None,
    random_hidden: RandomHiddenOption = 256,
    random_heads: RandomHeadsOption = None,
    random_embedding: RandomEmbeddingOption = False,
    threads: Annotated[list[int] | None, typer.Option(help="Threads of the server; repeatable (1, 2).", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="Timed queries of a warm server; the median counts.", min=1)] = 3,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """A whole query on the server's worker, by stage and operation, beside the planner's estimate."""
    from benchmarks.model import measure

    workload = _workload(bundle, bucket, random_layers, random_hidden, random_heads, random_embedding)
    report = measure(workload, tuple(threads) if threads else (1, 2), repeats, _notes(as_json))
    _show(f"{workload.name}, bucket {bucket}", report, markdown, as_json)


@app.command("calibrate")
@one_line_errors
def calibrate(
    repeats: Annotated[int, typer.Option(help="Timed runs of each operation; the median counts.", min=1)] = 5,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the prices of the planner's cost model to operations measured on this machine, one thread."""
    from benchmarks.calibration import measure

    report = measure(repeats)
    _show("Prices of the cost model", report, markdown, as_json)


@app.command("precision")
@one_line_errors
def precision(
    bucket: BucketOption = 32,
    bundle: BundleOption = None,
    random_layers: RandomLayersOption = None,
    random_hidden: RandomHiddenOption = 256,
    random_heads: RandomHeadsOption = None,
    random_embedding: RandomEmbeddingOption = False,
    threads: Annotated[int, typer.Option(help="Threads of the server.", min=1)] = 2,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bits of every intermediate value of an encrypted query that are right, by stage and layer, against the simulator."""
    from benchmarks.precision import measure

    workload = _workload(bundle, bucket, random_layers, random_hidden, random_heads, random_embedding)
    report = measure(workload, threads, _notes(as_json))
    # A table for people has the bits only; JSON has all statistics of both parts.
    shown = report if as_json else {name: value for name, value in report.items() if name != "stages"}
    _show(f"Precision of {workload.name}, bucket {bucket}", shown, markdown, as_json)


@app.command("client")
@one_line_errors
def client(
    bucket: Annotated[list[int] | None, typer.Option(help="Buckets to query; repeatable (32).", min=1)] = None,
    bundle: BundleOption = None,
    queries: Annotated[int, typer.Option(help="Queries of each bucket, one after the other.", min=1)] = 10,
    threads: Annotated[int, typer.Option(help="Threads of the server.", min=1)] = 2,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Client to client over loopback TLS: keys, encrypt, decrypt, bytes, memory of both; first query against tenth."""
    from benchmarks.client import measure

    directory = bundle_or_shipped(bundle)
    report = measure(directory, tuple(bucket) if bucket else (32,), queries, threads, _notes(as_json))
    _show(f"Client and server, {directory.name}", report, markdown, as_json)


def _workload(
    bundle: Path | None,
    bucket: int,
    random_layers: int | None,
    random_hidden: int,
    random_heads: int | None,
    random_embedding: bool,
) -> "Workload":
    from benchmarks.workloads import bundle_workload, random_workload

    if random_layers is None:
        return bundle_workload(bundle_or_shipped(bundle), bucket)
    if bundle is not None:
        raise ValueError("--bundle and --random-layers name two models; give one of them")
    return random_workload(random_layers, random_hidden, bucket, heads=random_heads, embedding=random_embedding)


def _notes(as_json: bool) -> Any:
    """What tells the user how far a benchmark is."""
    return (lambda _: None) if as_json else (lambda note: error_console.print(note, style="dim"))


def _show(title: str, report: dict[str, Any], markdown: Path | None, as_json: bool) -> None:
    from rich.markdown import Markdown

    from benchmarks.report import markdown as markdown_of

    text = markdown_of(title, report)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    if as_json:
        print_json(report)
    else:
        console.print(Markdown(text))
