"""`thex keygen` and `thex classify`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from services.cli.common import JsonOption, console, error_console, print_json
from services.cli.connection import Server, asks_server

TruncateOption = Annotated[
    bool, typer.Option("--truncate", help="Cut a text that is too long, as in training, instead of refusing it.")
]


@asks_server
def keygen(to: Server, as_json: JsonOption = False) -> None:
    """Make keys for a server's model and upload the evaluation keys; resumes where it stopped."""
    with Progress(console=error_console, transient=True, disable=as_json) as bar:
        task = bar.add_task("keys", total=None)
        with to.client(on_progress=lambda _, done, total: bar.update(task, completed=done, total=total)) as client:
            client.prepare()
            report = {"keys": len(client.plan.keys), "bytes": client.key_bytes, "directory": str(to.keys)}
    if as_json:
        print_json(report)
    else:
        console.print(
            f"{report['keys']} keys, {client.key_bytes / 1e6:.0f} MB, uploaded; "
            f"the secret key stays in {escape(str(to.keys))}"
        )


@asks_server
def classify(
    text: Annotated[str, typer.Argument(help="The text; it is encrypted before it leaves this process.")],
    to: Server,
    second: Annotated[str | None, typer.Option(help="The other text, for a model of pairs.")] = None,
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Classify a text, or score a pair, encrypted."""
    with to.client(truncate=truncate) as client:
        result = client.classify(text, second)
    if as_json:
        print_json(asdict(result))
        return
    # A regression's only logit is its score.
    answer = escape(result.label) if result.label else f"{result.logits[0]:.2f}"
    shares = "  ".join(f"{escape(label)} {share:.3f}" for label, share in result.probabilities.items())
    console.print(f"[bold]{answer}[/bold]  {shares}")
    left_out = f" ({result.cut} more were cut)" if result.cut else ""
    console.print(
        f"{result.tokens} tokens{left_out}; server {result.timings['server']:.1f} s; {result.bytes_up / 1e6:.1f} MB up",
        style="dim",
    )
