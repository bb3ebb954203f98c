"""`thex keys`: what keys this client has, at home and at a server."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from services.cli.common import JsonOption, console, one_line_errors, print_json
from services.cli.connection import Server, asks_server

app = typer.Typer(no_args_is_help=True, help="Keys of this client: list, rm, rotate.")


@app.command("list")
@one_line_errors
def list_keys(
    keys: Annotated[Path, typer.Option(help="Directory of this client's keys.")] = Server.keys,
    as_json: JsonOption = False,
) -> None:
    """Programs that there are keys for, and the servers that have them."""
    from services.client.key_cache import KEY_SET

    rows: list[dict[str, Any]] = []
    for place in sorted(path.parent for path in keys.glob("*/secret.key")):
        servers = sorted(
            path.name.removeprefix(KEY_SET) for path in place.glob(f"{KEY_SET}*") if not path.name.endswith("-tested")
        )
        size = sum(path.stat().st_size for path in (place / "evaluation-keys").glob("*"))
        rows.append({"program": place.name, "servers": servers, "evaluation_key_bytes": size})
    if as_json:
        print_json({"keys": rows})
        return
    for row in rows:
        places = escape(", ".join(row["servers"])) or "no server"
        console.print(f"{row['program']}  at {places}  {row['evaluation_key_bytes'] / 1e6:.0f} MB here")


@app.command("rm")
@asks_server
def remove(
    to: Server,
    everything: Annotated[bool, typer.Option("--all", help="All that the server has of this client.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have the server forget this client's evaluation keys. The secret key stays here."""
    with to.client() as client:
        client.delete_keys(everything=everything)
    if as_json:
        print_json({"removed": True})
    else:
        console.print("the server has no keys of this client any more")


@app.command("rotate")
@asks_server
def rotate(to: Server, as_json: JsonOption = False) -> None:
    """Make a new secret key and new evaluation keys, and forget the old ones here and at the server.

    Other servers of the same program keep evaluation keys of the old one, which fit nothing any more; they get new ones when
    they are asked next.
    """
    with to.client() as client:
        client.rotate_keys()
        size = client.key_bytes
    if as_json:
        print_json({"rotated": True, "bytes": size})
    else:
        console.print(f"new keys, {size / 1e6:.0f} MB, uploaded; the old ones are gone")
