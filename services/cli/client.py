"""`thex keygen` and `thex classify`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from services.cli.common import JsonOption, console, error_console, one_line_errors, print_json

ServerOption = Annotated[str, typer.Option("--server", help="host:port of the server.")]
KeysOption = Annotated[Path, typer.Option("--keys", help="Directory of this client's keys.")]
AuthorityOption = Annotated[Path | None, typer.Option("--authority", help="Certificate of the authority to trust.")]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="No TLS; loopback only.")]
PassphraseOption = Annotated[
    str | None, typer.Option(envvar="THEX_PASSPHRASE", help="Protects the secret key; without it a key file does.")
]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="THEX_TOKEN", help="Bearer token that the operator gave you.")
]
CertificateOption = Annotated[Path | None, typer.Option("--certificate", help="This client's certificate, for mTLS.")]
PrivateKeyOption = Annotated[Path | None, typer.Option("--private-key", help="The key of that certificate.")]
TruncateOption = Annotated[
    bool, typer.Option("--truncate", help="Cut a text that is too long, as in training, instead of refusing it.")
]
DEFAULT_KEYS = Path.home() / ".thex" / "keys"


@one_line_errors
def keygen(
    server: ServerOption = "127.0.0.1:8443",
    keys: KeysOption = DEFAULT_KEYS,
    authority: AuthorityOption = None,
    insecure: InsecureOption = False,
    passphrase: PassphraseOption = None,
    token: TokenOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make keys for a server's model and upload the evaluation keys; resumes where it stopped."""
    from services.client import Client, Identity

    with Progress(console=error_console, transient=True, disable=as_json) as bar:
        task = bar.add_task("keys", total=None)
        with Client(
            server,
            keys,
            authority,
            insecure,
            passphrase,
            identity=Identity(token, certificate, private_key),
            on_progress=lambda _, done, total: bar.update(task, completed=done, total=total),
        ) as client:
            client.prepare()
            report = {"keys": len(client.plan.keys), "bytes": client.key_bytes, "directory": str(keys)}
    if as_json:
        print_json(report)
    else:
        console.print(
            f"{report['keys']} keys, {client.key_bytes / 1e6:.0f} MB, uploaded; the secret key stays in {keys}"
        )


@one_line_errors
def classify(
    text: Annotated[str, typer.Argument(help="The text; it is encrypted before it leaves this process.")],
    server: ServerOption = "127.0.0.1:8443",
    keys: KeysOption = DEFAULT_KEYS,
    authority: AuthorityOption = None,
    insecure: InsecureOption = False,
    passphrase: PassphraseOption = None,
    second: Annotated[str | None, typer.Option(help="The other text, for a model of pairs.")] = None,
    truncate: TruncateOption = False,
    token: TokenOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify a text, or score a pair, encrypted."""
    from services.client import Client, Identity

    identity = Identity(token, certificate, private_key)
    with Client(server, keys, authority, insecure, passphrase, identity=identity, truncate=truncate) as client:
        result = client.classify(text, second)
    if as_json:
        print_json(asdict(result))
        return
    answer = result.label or f"{result.logits[0]:.2f}"  # a regression's only logit is its score
    console.print(f"[bold]{answer}[/bold]  " + "  ".join(f"{k} {v:.3f}" for k, v in result.probabilities.items()))
    left_out = f" ({result.cut} more were cut)" if result.cut else ""
    console.print(
        f"{result.tokens} tokens{left_out}; server {result.timings['server']:.1f} s; {result.bytes_up / 1e6:.1f} MB up",
        style="dim",
    )
