"""How a command reaches a server: options that all such commands have, written once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.common import one_line_errors

if TYPE_CHECKING:
    from services.client import Client


@dataclass(frozen=True)
class Server:
    """A server, what is trusted of it, and who asks. Each field is an option of every command under `asks_server`."""

    server: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:8443"
    keys: Annotated[Path, typer.Option(help="Directory of this client's keys.")] = Path.home() / ".thex" / "keys"
    authority: Annotated[Path | None, typer.Option(help="Certificate of the authority to trust.")] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS; loopback only.")] = False
    passphrase: Annotated[
        str | None, typer.Option(envvar="THEX_PASSPHRASE", help="Protects the secret key; without it a key file does.")
    ] = field(default=None, repr=False)
    token: Annotated[str | None, typer.Option(envvar="THEX_TOKEN", help="Bearer token that the operator gave you.")] = (
        field(default=None, repr=False)
    )
    certificate: Annotated[Path | None, typer.Option(help="This client's certificate, for mTLS.")] = None
    private_key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None
    bundle_digest: Annotated[
        str | None, typer.Option(help="Ask a server of this bundle alone, by the digest that `thex explain` prints.")
    ] = None

    def client(self, **options: Any) -> "Client":
        """A client of it. options: as of Client."""
        from services.client import Client, Identity

        identity = Identity(self.token, self.certificate, self.private_key)
        return Client(
            self.server,
            self.keys,
            self.authority,
            self.insecure,
            self.passphrase,
            identity=identity,
            bundle_digest=self.bundle_digest,
            **options,
        )


def asks_server(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `to` is a Server, as typer sees it: with an option for each of its fields instead."""
    shared = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
        for each in fields(Server)
    ]
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "to"]

    @wraps(command)
    def wrapper(**given: Any) -> None:
        to = Server(**{each.name: given.pop(each.name) for each in shared})
        command(to=to, **given)

    parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own), *shared]
    # What typer reads: the signature, and annotations by name.
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return one_line_errors(wrapper)
