"""Generated code, certificates and the command line."""

import hashlib
import json
from io import StringIO
from pathlib import Path

import pytest
from cryptography import x509
from rich.console import Console
from typer.testing import CliRunner

from he_runtime.explain import explain, render
from he_runtime.planner import plan_weights
from services._pb.generate import NAMES, generate
from services.addresses import is_loopback
from services.certificates import make_certificates
from services.cli.main import app
from tests.bundles import write_small_bundle
from tests.random_models import random_weights

RUNNER = CliRunner()


def test_generated_code_is_that_of_the_proto_files(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in NAMES:
        committed = Path(__file__).parents[2] / "services" / "_pb" / name
        assert (tmp_path / name).read_text() == committed.read_text(), "run python -m services._pb.generate"


def test_certificates_chain_and_keys_are_private(tmp_path: Path) -> None:
    written = make_certificates(tmp_path, ("example.test", "127.0.0.1"))
    authority = x509.load_pem_x509_certificate(written.authority.read_bytes())
    server = x509.load_pem_x509_certificate(written.certificate.read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["example.test"]
    assert written.private_key.stat().st_mode & 0o777 == 0o600


def test_loopback_is_recognised() -> None:
    assert all(is_loopback(target) for target in ("localhost:1", "127.0.0.1:1", "[::1]:1"))
    assert not any(is_loopback(target) for target in ("0.0.0.0:1", "example.test:1", "10.0.0.1:1"))


def test_explain_prints_one_json_object_or_tables(tmp_path: Path) -> None:
    bundle = str(write_small_bundle(tmp_path / "small"))
    answer = RUNNER.invoke(app, ["explain", bundle, "--json"])
    assert answer.exit_code == 0
    report = json.loads(answer.stdout)
    assert (report["levels"], report["ring_degree"]) == (8, 16384)
    assert report["bundle_digest"] == hashlib.sha256(Path(bundle, "manifest.json").read_bytes()).hexdigest()
    assert any("needs 8 levels, N=8192 offers 3" in line for line in report["does_not_fit"])
    assert report["key_bytes"] == sum(key["bytes"] for key in report["keys"])
    tables = RUNNER.invoke(app, ["explain", bundle])
    assert f"bundle {report['bundle_digest']}\n" in tables.stdout
    assert "does not fit" in tables.stdout
    assert "layer 1: scores" in tables.stdout
    (chosen,) = [alternative for alternative in report["alternatives"] if alternative["chosen"]]
    assert f"lowering      {chosen['name']}" in tables.stdout


def test_explain_says_how_baby_steps_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    options = [{"baby_steps": 6, "hoisted_steps": 4}]
    monkeypatch.setattr("he_runtime.lowering.hadamard.HadamardLowering.choices", lambda _shape: options)
    weights = random_weights(2, 16, 2, 64)
    plan = plan_weights(weights, (8,), logit_range=50.0, model_digest="test", lowering="hadamard sums")
    output = Console(width=200, file=StringIO())
    output.print(render(explain(plan), 8))
    assert "lowering      hadamard sums, 6 baby steps, 4 rotations hoisted" in output.file.getvalue()
    assert "rejected      token shifts, 14 levels: hadamard sums was asked for" in output.file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "/nowhere"], "is not a bundle"),
        (["serve", "--insecure", "--address", "0.0.0.0:1"], "loopback"),
        (["serve", "--certificates", "/nowhere"], "thex certs"),
        (["bench", "agreement", "--data", "/nowhere"], "No such file"),
        (["evaluate", "/nowhere", "--data", "/nowhere", "--hostile"], "give one of them"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    answer = RUNNER.invoke(app, arguments)
    assert answer.exit_code == 1
    assert message in answer.output
    assert "Traceback" not in answer.output
