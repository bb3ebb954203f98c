"""`thex embed`, `thex search` and `thex index`."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.cli.client import TruncateOption
from services.cli.common import JsonOption, console, error_console, lines_of, one_line_errors, print_json
from services.cli.connection import Server, asks_server

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from services.client import Client, EmbeddingCache, Match
    from services.client.result import Embedding

CACHE_NAME = "embeddings.sqlite"
CacheOption = Annotated[
    Path | None, typer.Option(help="Vectors of texts embedded before, each once; beside the keys by default.")
]


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True, disable=quiet) as bar:
        yield bar


def _prepare(client: "Client", bar: Progress) -> None:
    """Keys, if there are none yet; their number and size are said before they are made."""
    task = bar.add_task(f"making and uploading {client.key_bytes / 1e6:.0f} MB of keys", total=None)

    def show(phase: str, done: int, total: int) -> None:
        if phase == "keys":
            bar.update(task, completed=done, total=total)

    client.on_progress = show
    client.prepare()
    bar.remove_task(task)


def _cache(client: "Client", path: Path | None) -> "EmbeddingCache":
    from services.client import EmbeddingCache

    return EmbeddingCache(path if path is not None else client.session.directory / CACHE_NAME, client.model.digest)


def _refused_here(client: "Client", texts: list[str]) -> dict[str, str]:
    """Texts that this client would not even encrypt, and why: known before the first of the others costs anything."""
    from services.client import OutOfRangeError, TextTooLongError

    refused = {}
    for text in texts:
        try:
            client.session.prepare(text)
        except (OutOfRangeError, TextTooLongError) as error:
            refused[text] = str(error)
    return refused


def _fill(
    kept: "EmbeddingCache", client: "Client", texts: list[str], bar: Progress, refused: dict[str, str]
) -> "list[Embedding]":
    """Embed what the cache lacks; what was asked of the server for it. Adds to refused what has no vector, and why."""
    from services.client import OutOfRangeError

    task = bar.add_task("embedding, encrypted", total=len(texts))
    asked: list[Embedding] = []

    def embed(text: str) -> "NDArray[np.float32] | None":
        try:
            asked.append(client.embed_one(text))
        except OutOfRangeError as error:
            refused[text] = str(error)
            return None
        return asked[-1].vector

    kept.fill(texts, embed, lambda done, total: bar.update(task, completed=done, total=total))
    return asked


def _refuse(texts: list[str], refused: dict[str, str]) -> None:
    """ValueError that names the first of them; what was embedded before is kept."""
    for text, reason in refused.items():
        others = f" ({len(refused) - 1} more of {len(texts)} are refused, too)" if len(refused) > 1 else ""
        raise ValueError(f"text {texts.index(text) + 1}: {reason}{others}")


@asks_server
def embed(
    to: Server,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; each is encrypted before it leaves here.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text for each line of this file, beside those given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write float32 [texts, features] here, as .npy.")] = None,
    cache: CacheOption = None,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Unit vectors of texts, encrypted on the way. A stopped run goes on: what was embedded is kept."""
    import numpy as np

    wanted = [*(texts or []), *(lines_of(file) if file is not None else [])]
    if not wanted:
        raise ValueError("nothing to embed: give texts, or a file with --file")
    with to.client(truncate=truncate) as client, _progress(as_json) as bar:
        client.expect_kind("embedding")
        kept = _cache(client, cache)
        refused = _refused_here(client, wanted)
        _refuse(wanted, refused)
        _prepare(client, bar)
        asked = _fill(kept, client, wanted, bar, refused)
        _refuse(wanted, refused)
        vectors = kept.vectors(wanted)
        cut = sum(client.session.prepare(text).cut > 0 for text in wanted)
    if out is not None:
        np.save(out, vectors)
    cost = {
        "texts_cut": cut,
        "embedded": len(asked),
        "seconds": sum(one.timings["round_trip"] for one in asked),
        "bytes_up": sum(one.bytes_up for one in asked),
        "bytes_down": sum(one.bytes_down for one in asked),
    }
    if as_json:
        print_json({"vectors": vectors.tolist() if out is None else str(out), **cost})
        return
    for text, vector in zip(wanted, vectors, strict=True):
        shown = " ".join(f"{value:+.3f}" for value in vector[:6])
        console.print(f"{escape(text)}  [dim]{shown} … ({len(vector)} features)[/dim]", soft_wrap=True)
    if cut:
        console.print(f"{cut} of {len(wanted)} texts were too long and are cut", style="dim")
    console.print(
        f"{len(wanted)} texts, {len(asked)} embedded now; {cost['seconds']:.1f} s, {cost['bytes_up'] / 1e6:.1f} MB up",
        style="dim",
    )


@asks_server
def search(
    query: Annotated[str, typer.Argument(help="What to look for; it is encrypted before it leaves here.")],
    to: Server,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Text file; each line is a passage, embedded once and cached. Without it the server's corpus."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many passages to show.", min=1)] = 5,
    cache: CacheOption = None,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """The passages that mean what the query means, by cosine: of a file of yours, or of the server's own corpus.

    The server sees neither query, nor passages of yours, nor what was found. A stopped run goes on.
    """
    passages = list(dict.fromkeys(lines_of(corpus))) if corpus is not None else []
    if corpus is not None and not passages:
        raise ValueError(f"{corpus} holds no passages: expected one a line")
    started = time.perf_counter()
    with to.client(truncate=truncate) as client, _progress(as_json) as bar:
        client.expect_kind("search" if corpus is None else "embedding")
        if corpus is None:
            _prepare(client, bar)
            _show(
                [(f"passage {match.number + 1}", match) for match in client.search(query, top)],
                {"query": query},
                as_json,
            )
            return
        _search_own(client, query, passages, top, cache, bar, started, as_json)


def _search_own(
    client: "Client",
    query: str,
    passages: list[str],
    top: int,
    cache: Path | None,
    bar: Progress,
    started: float,
    as_json: bool,
) -> None:
    """Of a file of the client's; what cannot be embedded is named and left out."""
    from services.client.result import best

    kept = _cache(client, cache)
    refused = _refused_here(client, passages)
    passages = [passage for passage in passages if passage not in refused]
    _prepare(client, bar)
    wanted = client.embed_one(query)  # first: what it took is what every passage takes
    new = len(kept.missing(passages))
    if new and not as_json:
        error_console.print(
            f"{new} of {len(passages)} passages are new: about {new * wanted.timings['round_trip']:.0f} s, "
            f"{new * wanted.bytes_up / 1e6:.0f} MB up",
            style="dim",
        )
    asked = _fill(kept, client, passages, bar, refused)
    for text, reason in refused.items():
        error_console.print(f"left out: {escape(text[:60])}: {escape(reason)}", style="yellow", soft_wrap=True)
    passages = [passage for passage in passages if passage not in refused]
    matches = best(kept.vectors(passages) @ wanted.vector, top)
    document = {
        "query": query,
        "seconds": time.perf_counter() - started,
        "embedded": len(asked) + 1,
        "left_out": len(refused),
    }
    _show([(passages[match.number], match) for match in matches], document, as_json)


@one_line_errors
def index(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a sentence encoder.")],
    corpus: Annotated[Path, typer.Option(help="Text file; each line is a passage, in the clear.")],
    out: Annotated[Path, typer.Option(help="Where the bundle that searches them is written, for `thex serve`.")],
    bucket: Annotated[
        list[int] | None,
        typer.Option(
            help="Tokens of a query, one of the encoder's buckets; repeatable, all by default. Fewer need fewer keys."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Embed an operator's passages and write the bundle that searches them with encrypted queries."""
    from he_runtime.bundle import Bundle
    from services.indexing import expect_indexable, passage_vectors, write_search_bundle

    encoder, passages = Bundle.open(bundle), lines_of(corpus)
    expect_indexable(encoder, out, bucket)  # before an hour of embedding, not after it
    with _progress(as_json) as bar:
        task = bar.add_task("embedding passages", total=len(passages))
        vectors = passage_vectors(encoder, passages, lambda done, _total: bar.update(task, completed=done))
    write_search_bundle(encoder, vectors, out, bucket)
    if as_json:
        print_json({"bundle": str(out), "passages": len(passages)})
    else:
        console.print(f"{len(passages)} passages in {escape(str(out))}")


def _show(found: "list[tuple[str, Match]]", document: dict[str, Any], as_json: bool) -> None:
    """Passages as they are called, and where they are."""
    if as_json:
        rows = [{"passage": name, "number": match.number, "cosine": match.cosine} for name, match in found]
        print_json({**document, "passages": rows})
        return
    table = Table("cosine", "passage")
    for name, match in found:
        table.add_row(f"{match.cosine:.3f}", escape(name))
    console.print(table)
