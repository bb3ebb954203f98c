"""`thex bench client` on a small model: the real client and server, in processes of their own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from tests.bundles import write_small_bundle

RUNNER = CliRunner()


@pytest.mark.slow
def test_bench_client_measures_both_sides(tmp_path: Path) -> None:
    bundle = str(write_small_bundle(tmp_path / "small"))
    answer = RUNNER.invoke(
        app, ["bench", "client", "--bundle", bundle, *("--bucket", "8", "--bucket", "4", "--queries", "2", "--json")]
    )
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    rows = {item["name"]: item["seconds"] for item in report["rows"]}
    for name in ("keys made and uploaded, loopback", "keys made, not sent", "connected again, keys already there"):
        assert rows[name] > 0
    for bucket in (8, 4):
        phases = [rows[f"{phase}, bucket {bucket}"] for phase in ("encrypt", "round_trip", "decrypt")]
        assert rows[f"query 2, bucket {bucket}"] >= sum(phases)
        assert rows[f"server, bucket {bucket}"] < rows[f"round_trip, bucket {bucket}"]
        assert report["buckets"][str(bucket)]["bytes_up"] > report["buckets"][str(bucket)]["bytes_down"] > 0
    assert report["seconds_per_query"] == rows["query, bucket 8"]
    assert report["bytes"]["keys"] > 1e6
    # Keys are twice as large in memory, where their seeds are expanded.
    assert report["bytes"]["server_memory_with_one_client"] > report["bytes"]["keys"]
    assert min(report["peak_memory_bytes"].values()) > 50e6


def test_a_bucket_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    bundle = str(write_small_bundle(tmp_path / "small"))
    answer = RUNNER.invoke(app, ["bench", "client", "--bundle", bundle, "--bucket", "16"])
    assert answer.exit_code == 1
    assert "not among" in answer.output
