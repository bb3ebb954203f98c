"""What every command shares: the shipped bundle, JSON output, and errors in one line."""

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

SHIPPED_BUNDLE = "sst2-2x128"
TRAINING_PACKAGES = ("torch", "transformers", "scipy", "sklearn", "matplotlib")
console = Console()
if not console.is_terminal:
    console = Console(width=120)  # tables in files and pipes need no wrapping at 80
error_console = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def shipped_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(str(resources.files("thex"))) / "bundles" / SHIPPED_BUNDLE


def bundle_or_shipped(bundle: Path | None) -> Path:
    """The bundle asked for."""
    return bundle if bundle is not None else shipped_bundle()


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    typer.echo(json.dumps(value, indent=2))


def lines_of(file: Path) -> list[str]:
    """Its lines that are not blank."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Expected failures end with one line and exit code 1; THEX_DEBUG=1 shows the traceback."""

    @wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except ImportError as error:
            if os.environ.get("THEX_DEBUG"):
                raise
            extra = "train" if (error.name or "").split(".")[0] in TRAINING_PACKAGES else "client,server"
            error_console.print(
                f"[red]error:[/red] {escape(str(error.name))} is missing; install the extra that has it: 'thex\\[{extra}]'"
            )
            raise typer.Exit(1) from None
        except Exception as error:
            if not isinstance(error, _expected()) or os.environ.get("THEX_DEBUG"):
                raise
            error_console.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(1) from None

    return wrapper


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose text is for the user. Asked for after the fact: importing the client would load SEAL into the front."""
    from he_runtime.errors import HERuntimeError

    expected: tuple[type[Exception], ...] = (HERuntimeError, OSError, ValueError)
    for module, name in (
        ("services.client.errors", "ClientError"),
        ("services.server.worker_handle", "WorkerDiedError"),
    ):
        if module in sys.modules:
            expected = (*expected, getattr(sys.modules[module], name))
    return expected
