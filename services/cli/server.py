"""`thex serve` and `thex certs`."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, one_line_errors, print_json


@one_line_errors
def certs(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")] = Path("certificates"),
    name: Annotated[list[str] | None, typer.Option(help="Host name or address of the server; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make development certificates: an authority for clients to trust, and a server certificate."""
    from services.certificates import VALID_DAYS, make_certificates

    written = make_certificates(directory, tuple(name) if name else ("localhost", "127.0.0.1", "::1"))
    if as_json:
        print_json(
            {
                "authority": str(written.authority),
                "certificate": str(written.certificate),
                "key": str(written.private_key),
            }
        )
    else:
        console.print(f"clients trust {written.authority}; the server uses {written.certificate} ({VALID_DAYS} days)")


@one_line_errors
def serve(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    address: Annotated[str, typer.Option(help="host:port to listen on.")] = "127.0.0.1:8443",
    certificates: Annotated[Path, typer.Option(help="Directory with server.pem and server.key.")] = Path(
        "certificates"
    ),
    insecure: Annotated[bool, typer.Option(help="No TLS; loopback addresses only.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of the evaluator.", min=1)] = 2,
    key_directory: Annotated[
        Path | None, typer.Option(help="Where clients' keys are kept; temporary by default.")
    ] = None,
    cache_directory: Annotated[
        Path | None, typer.Option(help="Where encoded plaintexts are kept between starts; ~/.cache/thex by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a bundle until SIGTERM. Prints its limits and, once ready, its port."""
    import asyncio

    from he_runtime.constant_cache import default_cache_directory
    from services.client.connection import is_loopback
    from services.server.front import Settings
    from services.server.front import serve as serve_front

    if insecure and not is_loopback(address):
        raise ValueError(
            f"--insecure serves loopback addresses only, not {address}; make certificates with `thex certs`"
        )
    pair = (None, None) if insecure else (certificates / "server.pem", certificates / "server.key")
    if not insecure and not all(path is not None and path.exists() for path in pair):
        raise ValueError(
            f"{certificates} holds no server.pem and server.key; make them with `thex certs {certificates}`"
        )
    settings = Settings(
        bundle_or_shipped(bundle),
        address,
        pair[0],
        pair[1],
        key_directory,
        threads,
        cache_directory=cache_directory or default_cache_directory(),
    )
    if not as_json:
        console.print(f"planning and compiling; then serving on {address}")

    def ready(port: int) -> None:
        if as_json:
            print_json({"ready": True, "port": port})

    asyncio.run(serve_front(settings, on_ready=ready))
