"""`thex tokens`: bearer tokens of clients. The server keeps hashes; a token is shown once, when it is made."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, console, one_line_errors, print_json

app = typer.Typer(no_args_is_help=True, help="Bearer tokens of clients: add, list, revoke.")
FileOption = Annotated[Path, typer.Option("--file", help="The server's file of token hashes.", envvar="THEX_TOKENS")]
DEFAULT_FILE = Path("tokens.json")


@app.command("add")
@one_line_errors
def add(
    name: Annotated[str, typer.Argument(help="Whose token it is; several tokens of one name are one client.")],
    file: FileOption = DEFAULT_FILE,
    days: Annotated[float, typer.Option(help="How long it is good for.", min=0)] = 90.0,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it. It is not kept: give it to the client now."""
    from services.server.identity import TokenFile

    token = TokenFile(file).add(name, days)
    if as_json:
        print_json({"name": name, "token": token, "days": days})
    else:
        typer.echo(token)


@app.command("list")
@one_line_errors
def list_tokens(file: FileOption = DEFAULT_FILE, as_json: JsonOption = False) -> None:
    """Whose tokens there are, and until when."""
    from services.server.identity import TokenFile

    rows = [
        {
            "identity": token.identity,
            "name": token.name,
            "expires": datetime.fromtimestamp(token.expires, UTC).isoformat(),
        }
        for token in TokenFile(file).tokens().values()
    ]
    if as_json:
        print_json({"tokens": rows})
        return
    for row in rows:
        console.print(f"{row['identity']}  {row['name']}  until {row['expires']}", highlight=False)


@app.command("revoke")
@one_line_errors
def revoke(
    name: Annotated[str, typer.Argument(help="The client's name, or one token's identity.")],
    file: FileOption = DEFAULT_FILE,
    as_json: JsonOption = False,
) -> None:
    """Forget tokens; a running server notices at the next call."""
    from services.server.identity import TokenFile

    removed = TokenFile(file).revoke(name)
    if not removed:
        raise ValueError(f"{file} has no token of {name!r}; see `thex tokens list`")
    if as_json:
        print_json({"revoked": removed})
    else:
        console.print(f"{removed} revoked")
