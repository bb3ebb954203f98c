"""`thex serve` and `thex certs`."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, one_line_errors, print_json


@one_line_errors
def certs(
    directory: Annotated[Path, typer.Argument(help="Where to write them.")] = Path("certificates"),
    name: Annotated[list[str] | None, typer.Option(help="Host name or address of the server; repeatable.")] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="Make a certificate for this client too; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make development certificates: an authority for clients to trust, and a server certificate."""
    from services.certificates import VALID_DAYS, make_certificates

    written = make_certificates(
        directory, tuple(name) if name else ("localhost", "127.0.0.1", "::1"), tuple(client or ())
    )
    if as_json:
        print_json(
            {
                "authority": str(written.authority),
                "certificate": str(written.certificate),
                "key": str(written.private_key),
                "clients": [str(certificate) for certificate, _ in written.clients],
            }
        )
    else:
        console.print(f"clients trust {written.authority}; the server uses {written.certificate} ({VALID_DAYS} days)")


@one_line_errors
def serve(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    address: Annotated[str | None, typer.Option(help="host:port to listen on; 127.0.0.1:8443 by default.")] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Directory with server.pem and server.key; `certificates` by default.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="No TLS; loopback addresses only.")] = False,
    authentication: Annotated[str | None, typer.Option(help="none (loopback only), token or mtls.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 1 by default.", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each worker; 2 by default.", min=1)] = None,
    key_directory: Annotated[
        Path | None, typer.Option(help="Where clients' keys are kept; temporary by default.")
    ] = None,
    cache_directory: Annotated[
        Path | None, typer.Option(help="Where encoded plaintexts are kept between starts; ~/.cache/thex by default.")
    ] = None,
    metrics_address: Annotated[
        str | None, typer.Option(help="host:port of Prometheus metrics; none by default.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags and THEX_ variables win.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, as limits.request_seconds=60; repeatable.")
    ] = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a bundle until SIGTERM. Prints its limits and, once ready, its port."""
    import asyncio

    from he_runtime.cache_directory import default_cache_directory
    from services.server.logs import configure_logs
    from services.server.serving import serve as serve_until_stopped
    from services.server.settings import load_settings
    from services.server.tls import CERTIFICATE, PRIVATE_KEY

    flags = {
        "bundle": bundle,
        "address": address,
        "certificates": certificates,
        "authentication": authentication,
        "workers": workers,
        "threads": threads,
        "key_directory": key_directory,
        "cache_directory": cache_directory,
        "metrics_address": metrics_address,
    }
    defaults = {"bundle": bundle_or_shipped(None), "cache_directory": default_cache_directory()}
    settings = load_settings(config, flags, assignments or (), defaults=defaults, insecure=insecure)
    if print_config:
        print_json(settings.printable())
        return
    place = settings.certificates
    if place is not None and not all((place / name).exists() for name in (CERTIFICATE, PRIVATE_KEY)):
        raise ValueError(f"{place} holds no server.pem and server.key; make them with `thex certs {place}`")
    if not as_json:
        console.print(f"planning and compiling; then serving on {settings.address}")
        for name, value in settings.printable()["limits"].items():
            console.print(f"  {name} = {value:,}", style="dim", highlight=False)

    def ready(port: int, metrics_port: int | None) -> None:
        if as_json:
            print_json({"ready": True, "port": port, "metrics_port": metrics_port})
        else:
            console.print(f"ready on port {port}")

    configure_logs()
    asyncio.run(serve_until_stopped(settings, on_ready=ready))
