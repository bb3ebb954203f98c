"""Deployment files pass their linters; the board asks for metrics that exist; health and doctor say what they find."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.board import BOARD, board
from services.certificates import make_certificates
from services.cli.main import app
from services.server.identity import TokenFile
from services.server.metrics import Metrics
from services.server.refusals import REASONS
from services.server.settings import Settings
from tests.bundles import write_small_bundle

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize(
    "command",
    [
        ["yamllint", "--strict", "-c", "deploy/.yamllint", "deploy"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"],
        ["hadolint", "deploy/Containerfile"],
        ["kubernetes-validate", "--strict", "deploy/kubernetes/thex.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_linters_find_nothing(command: list[str]) -> None:
    tool = Path(sys.executable).parent / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_board_is_what_its_script_writes_and_asks_for_metrics_that_exist() -> None:
    assert json.loads(BOARD.read_text()) == board()
    metrics = Metrics()
    known = {name for family in metrics.registry.collect() for name in (family.name, f"{family.name}_total")}
    asked = set(re.findall(r"\b(?:thex|process)_[a-z_]+", BOARD.read_text()))
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert asked <= known | {"process_resident_memory_bytes"}
    documented = set(re.findall(r"`(thex_[a-z_]+)", (ROOT / "docs" / "metrics.md").read_text()))
    assert {name.removesuffix("_total") for name in documented} == {
        family.name for family in metrics.registry.collect() if family.name.startswith("thex_")
    }


def test_the_container_sets_settings_that_exist() -> None:
    texts = (DEPLOY / "Containerfile").read_text() + (DEPLOY / "kubernetes" / "thex.yaml").read_text()
    names = {name.lower() for name in re.findall(r"THEX_([A-Z_]+?)(?:=|:)", texts)}
    for name in names:
        first, _, rest = name.partition("__")
        assert first in Settings.model_fields, name
        assert not rest or rest in type(Settings.model_fields["limits"].default).model_fields, name


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    certificates, tokens = tmp_path / "certificates", tmp_path / "tokens.json"
    arguments = ["doctor", "--json", "--certificates", str(certificates), "--tokens", str(tokens)]
    arguments += ["--bundle", str(write_small_bundle(tmp_path / "bundle"))]
    arguments += ["--key-directory", str(tmp_path / "keys")]
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == 1
    found = {finding["what"]: finding for finding in json.loads(missing.stdout)["findings"]}
    assert found["certificate"]["state"] == "bad"
    assert "thex certs" in found["certificate"]["found"]
    written = make_certificates(certificates)
    TokenFile(tokens).add("alice", 1)
    healthy = json.loads(CliRunner().invoke(app, arguments).stdout)["findings"]
    assert {finding["what"]: finding["state"] for finding in healthy}["tokens"] == "good"
    assert not [finding for finding in healthy if finding["state"] == "bad"]
    written.private_key.chmod(0o644)
    tokens.chmod(0o644)
    open_to_all = json.loads(CliRunner().invoke(app, arguments).stdout)["findings"]
    assert [finding["what"] for finding in open_to_all if finding["state"] == "bad"] == ["private key", "tokens"]


def test_health_of_nobody_is_bad() -> None:
    answer = CliRunner().invoke(app, ["health", "127.0.0.1:1", "--insecure", "--json", "--seconds", "0.5"])
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["status"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_every_reason_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text()))
    assert REASONS.keys() <= documented
    in_code = set()
    for path in [*(ROOT / "services" / "server").glob("*.py"), *(ROOT / "he_runtime" / "wire").glob("*.py")]:
        in_code |= set(re.findall(r'WireError\(\s*"([a-z_]+)"', path.read_text()))
    assert in_code <= REASONS.keys()
