"""`thex embed`, `thex search` and `thex index`."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.cli.client import (
    DEFAULT_KEYS,
    AuthorityOption,
    CertificateOption,
    InsecureOption,
    KeysOption,
    PassphraseOption,
    PrivateKeyOption,
    ServerOption,
    TokenOption,
    TruncateOption,
)
from services.cli.common import JsonOption, console, error_console, lines_of, one_line_errors, print_json

if TYPE_CHECKING:
    from services.client import Client

CACHE_NAME = "embeddings.sqlite"


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


@one_line_errors
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; each is encrypted before it leaves here.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text for each line of this file, beside those given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write float32 [texts, features] here, as .npy.")] = None,
    server: ServerOption = "127.0.0.1:8443",
    keys: KeysOption = DEFAULT_KEYS,
    authority: AuthorityOption = None,
    insecure: InsecureOption = False,
    passphrase: PassphraseOption = None,
    truncate: TruncateOption = False,
    token: TokenOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Unit vectors of texts, encrypted on the way."""
    import numpy as np

    from services.client import Client, Identity

    wanted = [*(texts or []), *(lines_of(file) if file is not None else [])]
    if not wanted:
        raise ValueError("nothing to embed: give texts, or a file with --file")
    identity = Identity(token, certificate, private_key)
    with (
        Client(server, keys, authority, insecure, passphrase, identity=identity, truncate=truncate) as client,
        _progress(as_json) as bar,
    ):
        _prepare(client, bar)
        task = bar.add_task("embedding, encrypted", total=len(wanted))
        found = []
        for text in wanted:
            found.append(client.embed_one(text))
            bar.advance(task)
    vectors = np.stack([one.vector for one in found])
    if out is not None:
        np.save(out, vectors)
    cost = {
        "texts_cut": sum(one.cut > 0 for one in found),
        "seconds": sum(one.timings["round_trip"] for one in found),
        "bytes_up": sum(one.bytes_up for one in found),
        "bytes_down": sum(one.bytes_down for one in found),
    }
    if as_json:
        print_json({"vectors": vectors.tolist() if out is None else str(out), **cost})
        return
    for text, vector in zip(wanted, vectors, strict=True):
        shown = " ".join(f"{value:+.3f}" for value in vector[:6])
        console.print(f"{text}  [dim]{shown} … ({len(vector)} features)[/dim]", soft_wrap=True)
    if cost["texts_cut"]:
        console.print(f"{cost['texts_cut']} of {len(found)} texts were too long and are cut", style="dim")
    console.print(f"{len(found)} texts; {cost['seconds']:.1f} s, {cost['bytes_up'] / 1e6:.1f} MB up", style="dim")


@one_line_errors
def search(
    query: Annotated[str, typer.Argument(help="What to look for; it is encrypted before it leaves here.")],
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Text file; each line is a passage, embedded once and cached. Without it the server's corpus."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many passages to show.", min=1)] = 5,
    cache: Annotated[Path | None, typer.Option(help="Vectors of passages; beside the keys by default.")] = None,
    server: ServerOption = "127.0.0.1:8443",
    keys: KeysOption = DEFAULT_KEYS,
    authority: AuthorityOption = None,
    insecure: InsecureOption = False,
    passphrase: PassphraseOption = None,
    truncate: TruncateOption = False,
    token: TokenOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """The passages that mean what the query means, by cosine: of a file of yours, or of the server's own corpus.

    The server sees neither query, nor passages of yours, nor what was found. A stopped run goes on.
    """
    from services.client import Client, EmbeddingCache, Identity

    passages = list(dict.fromkeys(lines_of(corpus))) if corpus is not None else []
    if corpus is not None and not passages:
        raise ValueError(f"{corpus} holds no passages: expected one a line")
    identity = Identity(token, certificate, private_key)
    started = time.perf_counter()
    with (
        Client(server, keys, authority, insecure, passphrase, identity=identity, truncate=truncate) as client,
        _progress(as_json) as bar,
    ):
        _prepare(client, bar)
        if corpus is None:
            matches = client.search(query, top)
            rows = [{"passage": f"passage {match.number + 1}", "cosine": match.cosine} for match in matches]
            _show(rows, {"query": query, "passages": [vars(match) for match in matches]}, as_json)
            return
        kept = EmbeddingCache(cache if cache is not None else client.session.directory / CACHE_NAME)
        wanted = client.embed_one(query)  # first: what it took is what every passage takes
        new = len(kept.missing(passages))
        if new and not as_json:
            error_console.print(
                f"{new} of {len(passages)} passages are new: about {new * wanted.timings['round_trip']:.0f} s, "
                f"{new * wanted.bytes_up / 1e6:.0f} MB up",
                style="dim",
            )
        task = bar.add_task("embedding passages, encrypted", total=new)
        vectors = kept.vectors(
            passages,
            lambda passage: client.embed_one(passage).vector,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    cosines = vectors @ wanted.vector
    best = cosines.argsort(kind="stable")[::-1][:top]
    rows = [{"passage": passages[index], "cosine": float(cosines[index])} for index in best]
    cost = {"seconds": time.perf_counter() - started, "embedded": new + 1}
    _show(rows, {"query": query, "passages": rows, **cost}, as_json)


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
    from services.indexing import passage_vectors, write_search_bundle

    encoder, passages = Bundle.open(bundle), lines_of(corpus)
    with _progress(as_json) as bar:
        task = bar.add_task("embedding passages", total=len(passages))
        vectors = passage_vectors(encoder, passages, lambda done, _total: bar.update(task, completed=done))
    write_search_bundle(encoder, vectors, out, bucket)
    if as_json:
        print_json({"bundle": str(out), "passages": len(passages)})
    else:
        console.print(f"{len(passages)} passages in {out}")


def _show(rows: list[dict[str, Any]], document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    table = Table("cosine", "passage")
    for row in rows:
        table.add_row(f"{row['cosine']:.3f}", str(row["passage"]))
    console.print(table)
