"""`thex keys`: what keys this client has, at home and at a server."""

import shutil
from typing import Annotated, Any

import typer

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
)
from services.cli.common import JsonOption, console, one_line_errors, print_json

app = typer.Typer(no_args_is_help=True, help="Keys of this client: list, rm, rotate.")


@app.command("list")
@one_line_errors
def list_keys(keys: KeysOption = DEFAULT_KEYS, as_json: JsonOption = False) -> None:
    """Programs that there are keys for, and the servers that have them."""
    rows: list[dict[str, Any]] = []
    for place in sorted(path.parent for path in keys.glob("*/secret.key")):
        servers = sorted(
            path.name.removeprefix("key-set-") for path in place.glob("key-set-*") if not path.name.endswith("-tested")
        )
        size = sum(path.stat().st_size for path in (place / "evaluation-keys").glob("*"))
        rows.append({"program": place.name, "servers": servers, "evaluation_key_bytes": size})
    if as_json:
        print_json({"keys": rows})
        return
    for row in rows:
        console.print(
            f"{row['program']}  at {', '.join(row['servers']) or 'no server'}  {row['evaluation_key_bytes'] / 1e6:.0f} MB here"
        )


@app.command("rm")
@one_line_errors
def remove(
    server: ServerOption = "127.0.0.1:8443",
    keys: KeysOption = DEFAULT_KEYS,
    authority: AuthorityOption = None,
    insecure: InsecureOption = False,
    passphrase: PassphraseOption = None,
    token: TokenOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the server has of this client.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have the server forget this client's evaluation keys. The secret key stays here."""
    from services.client import Client, Identity

    identity = Identity(token, certificate, private_key)
    with Client(server, keys, authority, insecure, passphrase, identity=identity) as client:
        client.delete_keys(everything=everything)
    if as_json:
        print_json({"removed": True})
    else:
        console.print("the server has no keys of this client any more")


@app.command("rotate")
@one_line_errors
def rotate(
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
    """Make a new secret key and new evaluation keys, and forget the old ones here and at the server."""
    from services.client import Client, Identity

    identity = Identity(token, certificate, private_key)
    with Client(server, keys, authority, insecure, passphrase, identity=identity) as client:
        client.delete_keys()
        place = client.session.directory
    for path in place.iterdir():
        if path.name in ("secret.key", "storage.key"):
            path.unlink()
    shutil.rmtree(place / "evaluation-keys", ignore_errors=True)
    with Client(server, keys, authority, insecure, passphrase, identity=identity) as client:
        client.prepare()
        size = client.key_bytes
    if as_json:
        print_json({"rotated": True, "bytes": size})
    else:
        console.print(f"new keys, {size / 1e6:.0f} MB, uploaded; the old ones are gone")
