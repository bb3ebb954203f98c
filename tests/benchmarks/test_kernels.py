"""`thex bench kernels` on the smallest ring: whether it measures, not how fast anything is."""

import json
from pathlib import Path

from typer.testing import CliRunner

from services.cli.main import app

RUNNER = CliRunner()
SMALL = ["bench", "kernels", "--ring-degree", "8192", "--primes", "3", "--repeats", "3", "--no-every-ring"]


def test_kernels_beside_seal(tmp_path: Path) -> None:
    file = tmp_path / "kernels.md"
    answer = RUNNER.invoke(app, [*SMALL, "--json", "--markdown", str(file)])
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert report["machine"]["processor"]
    rows = {item["name"]: item for item in report["rows"]}
    beside = ("NTT forward, N=8192", "rotation, N=8192, 3 primes", "relinearise, N=8192, 3 primes")
    for name in (*beside, "sum of 64 ct x pt of period 256, N=8192, 3 primes", "rescale, N=8192, 3 primes"):
        assert rows[name]["ratio"] == rows[name]["seal_seconds"] / rows[name]["seconds"] > 0
        assert name in file.read_text()
    assert "ratio" not in rows["seed expansion, 5 rows, N=8192"]


def test_one_prime_is_refused() -> None:
    answer = RUNNER.invoke(app, ["bench", "kernels", "--primes", "1"])
    assert answer.exit_code == 1
    assert "at least 2 primes" in answer.output
