"""Flags over environment over file over defaults; every mistake is one line that names the setting."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.server.settings import load_settings

BUNDLE = {"bundle": Path("somewhere")}


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "thex.toml"
    file.write_text('bundle = "from-file"\nthreads = 3\nworkers = 3\n[limits]\nuploads = 3\nqueued_requests = 3\n')
    monkeypatch.setenv("THEX_WORKERS", "4")
    monkeypatch.setenv("THEX_LIMITS__UPLOADS", "4")
    settings = load_settings(file, {"workers": 5, "threads": None}, ["limits.idle_seconds=5"])
    assert (settings.bundle, settings.threads, settings.workers) == (Path("from-file"), 3, 5)
    assert (settings.limits.uploads, settings.limits.queued_requests, settings.limits.idle_seconds) == (4, 3, 5)


@pytest.mark.parametrize(
    ("flags", "assignments", "message"),
    [
        (BUNDLE, ["limits.no_such=1"], r"limits\.no_such: Extra inputs"),
        (BUNDLE, ["limits.uploads=0"], r"limits\.uploads: .*greater than or equal to 1"),
        (BUNDLE, ["threads"], "NAME=VALUE"),
        ({}, [], "bundle: Field required"),
        ({**BUNDLE, "address": "0.0.0.0:1"}, [], "open to strangers"),
        ({**BUNDLE, "authentication": "password"}, [], "authentication: "),
    ],
)
def test_mistakes_are_one_line(flags: dict[str, object], assignments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_settings(None, flags, assignments)
    assert "\n" not in str(caught.value)


def test_nobody_is_served_in_the_clear_from_afar() -> None:
    with pytest.raises(ValueError, match="without TLS only loopback"):
        load_settings(None, {**BUNDLE, "address": "0.0.0.0:1", "authentication": "token"}, insecure=True)
    assert load_settings(None, {**BUNDLE, "address": "0.0.0.0:1", "authentication": "token"}).certificates is not None


def test_print_config_shows_every_limit() -> None:
    answer = CliRunner().invoke(app, ["serve", "--print-config", "--set", "limits.uploads=7"])
    assert answer.exit_code == 0, answer.output
    shown = json.loads(answer.stdout)["limits"]
    assert shown["uploads"] == 7
    assert shown.keys() >= {"message_bytes", "chunk_bytes", "queued_requests", "request_seconds", "idle_seconds"}
