"""`thex health` and `thex doctor`: is the server ready, and is this machine fit to be one."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, one_line_errors, print_json

MARKS = {"good": "[green]good[/green]", "warning": "[yellow]warning[/yellow]", "bad": "[red]bad[/red]"}


@one_line_errors
def health(
    server: Annotated[str, typer.Argument(help="host:port of the server.")] = "127.0.0.1:8443",
    authority: Annotated[Path | None, typer.Option(help="Certificate of the authority to trust.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS; loopback only.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Ask whether it lives, not whether it takes queries.")] = False,
    seconds: Annotated[float, typer.Option(help="How long to wait.", min=0.1)] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Ask grpc.health.v1; exit code 0 if it serves, 1 otherwise."""
    from services.health_check import ask_health

    status = ask_health(server, authority, insecure=insecure, live=live, seconds=seconds)
    if as_json:
        print_json({"status": status})
    else:
        console.print(status)
    if status != "SERVING":
        raise typer.Exit(1)


@one_line_errors
def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Bundle to be served; the shipped one by default.")] = None,
    certificates: Annotated[Path, typer.Option(help="Directory with server.pem and server.key.")] = Path(
        "certificates"
    ),
    tokens: Annotated[Path, typer.Option(help="File of token hashes.")] = Path("tokens.json"),
    key_directory: Annotated[Path, typer.Option(help="Where clients' keys are kept.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check what a server needs of this machine; exit code 1 if something is bad."""
    from services.server.doctor import examine

    findings = examine(bundle_or_shipped(bundle), certificates, tokens, key_directory)
    if as_json:
        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            console.print(f"{MARKS[finding.state]:>24}  {finding.what}: {finding.found}", highlight=False)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
