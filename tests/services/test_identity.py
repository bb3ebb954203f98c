"""Tokens are good for their owner until they expire or are revoked; nothing of them is on disk; every refusal is the same."""

import hmac
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from he_runtime.errors import WireError
from services.cli.main import app
from services.server.identity import ANONYMOUS, Authenticator, Principal, TokenFile


def refused(authenticator: Authenticator, *headers: tuple[str, str]) -> str:
    with pytest.raises(WireError) as caught:
        authenticator.principal(headers, {})
    assert caught.value.reason == "unauthenticated"
    return str(caught.value)


def test_a_token_names_its_owner_until_it_is_revoked(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    alice, bob = file.add("alice", 1), file.add("bob", 1)
    server = Authenticator("token", TokenFile(tmp_path / "tokens.json"))
    assert server.principal([("authorization", f"Bearer {alice}")], {}) == Principal("token:alice")
    assert server.principal([("authorization", f"Bearer {bob}")], {}).tenant != Principal("token:alice").tenant
    assert file.revoke("alice") == 1
    refused(server, ("authorization", f"Bearer {alice}"))  # noticed without a restart
    assert server.principal([("authorization", f"Bearer {bob}")], {}) == Principal("token:bob")


def test_every_defect_gets_the_same_answer_after_the_same_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    token, expired = file.add("alice", 1), file.add("old", 0)
    server = Authenticator("token", file)
    compared: list[tuple[int, int]] = []
    compare_digest = hmac.compare_digest

    def compare(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return compare_digest(left, right)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    prefix, name, secret = token.split("_", 2)
    wrong = [
        f"{prefix}_{name}_{'x' * len(secret)}",
        f"{prefix}_{'0' * 16}_{secret}",
        f"other_{name}_{secret}",
        "",
        expired,
    ]
    answers = {refused(server, ("authorization", f"Bearer {value}")) for value in wrong}
    answers |= {
        refused(server),
        refused(server, ("authorization", token)),
        refused(server, *[("authorization", f"Bearer {token}")] * 2),
    }
    assert len(answers) == 1
    assert compared == [(64, 64)] * len(wrong)


def test_the_file_holds_hashes_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token = TokenFile(path).add("alice", 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert token.split("_", 2)[2] not in path.read_text()


def test_certificates_and_anonymous_callers(tmp_path: Path) -> None:
    mtls = Authenticator("mtls", TokenFile(tmp_path / "none"))
    names = {"x509_subject_alternative_name": [b"alice.example"], "x509_common_name": [b"other"]}
    assert mtls.principal([], names) == Principal("certificate:alice.example")
    assert mtls.principal([], {"x509_common_name": [b"bob"]}) == Principal("certificate:bob")
    refused(mtls, ("authorization", "Bearer something"))
    assert Authenticator("none", TokenFile(tmp_path / "none")).principal([], {}) == ANONYMOUS


def test_thex_tokens(tmp_path: Path) -> None:
    run, file = CliRunner(), ["--file", str(tmp_path / "tokens.json")]
    made = json.loads(run.invoke(app, ["tokens", "add", "alice", "--json", *file]).stdout)
    assert TokenFile(tmp_path / "tokens.json").principal(made["token"]) == Principal("token:alice")
    listed = run.invoke(app, ["tokens", "list", "--json", *file]).stdout
    assert json.loads(listed)["tokens"][0]["name"] == "alice"
    assert made["token"] not in listed
    assert run.invoke(app, ["tokens", "revoke", "alice", *file]).exit_code == 0
    gone = run.invoke(app, ["tokens", "revoke", "alice", *file])
    assert gone.exit_code == 1
    assert "no token of 'alice'" in gone.output
    (tmp_path / "tokens.json").write_text("[]")
    broken = run.invoke(app, ["tokens", "list", *file])
    assert "is not a file of tokens" in broken.output
