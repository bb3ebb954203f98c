"""A bundle's directory: whole or absent, known by the digests of its files, and the only kind of directory that is replaced."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_FORMAT = "thex-bundle-manifest"
HALVES = {
    "config.json": "both",
    "client.safetensors": "client",
    "tokenizer.json": "client",
    "server.safetensors": "server",
    "README.md": "both",
}


def expect_replaceable(directory: Path) -> None:
    """ValueError where a bundle cannot be written without deleting something else that is there."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        is_bundle = manifest["format"] == MANIFEST_FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_bundle = False
    if not is_bundle:
        raise ValueError(f"{directory} is there and is no bundle: a bundle would take its place; choose another")


def manifest_digest(directory: Path) -> str | None:
    """SHA-256 of the manifest, and so of all files of the bundle; None where there is none."""
    try:
        return hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None


@contextmanager
def written_bundle(directory: Path) -> Iterator[Path]:
    """A directory to write files of HALVES to: with their manifest it takes the place of `directory` when nothing went wrong.

    ValueError as `expect_replaceable`.
    """
    expect_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        target = Path(temporary) / "bundle"
        target.mkdir()
        yield target
        files = {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
                "half": HALVES[path.name],
            }
            for path in sorted(target.iterdir())
        }
        manifest = {"format": MANIFEST_FORMAT, "format_version": FORMAT_VERSION, "files": files}
        (target / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        expect_replaceable(directory)
        if directory.exists():
            shutil.rmtree(directory)
        target.rename(directory)
