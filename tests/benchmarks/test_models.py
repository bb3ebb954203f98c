"""`thex bench model` and `thex bench precision` on small models: whether they measure the right thing, not how fast it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.workloads import random_workload, text_of
from services.cli.main import app
from tests.bundles import write_small_bundle

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_bundle(tmp_path_factory.mktemp("bundles") / "small"))


def report_of(*arguments: str) -> dict[str, Any]:
    answer = RUNNER.invoke(app, ["bench", *arguments, "--json"])
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert report["machine"]["processor"]
    return report


def test_bench_model_puts_the_estimate_beside_the_measurement(bundle: str, tmp_path: Path) -> None:
    file = tmp_path / "model.md"
    report = report_of("model", "--bundle", bundle, "--bucket", "8", "--repeats", "1", "--markdown", str(file))
    assert report["seconds_per_query"] == min(report["seconds_by_threads"].values()) > 0
    assert set(report["seconds_by_threads"]) == {"1", "2"}
    assert min(report["gain_of_two_threads"].values()) > 0
    assert report["bytes"]["keys_in_memory"] > report["bytes"]["keys"]
    assert 0 < report["max_error_against_simulator"] < 1e-3  # CKKS is never exact
    assert report["max_logit_error"] < 1e-3
    assert report["max_error_of_simulator"] < 1e-9
    rows = {item["name"]: item for item in report["rows"]}
    stages, operations = ([item for name, item in rows.items() if name.startswith(kind)] for kind in ("stage", "oper"))
    for breakdown in (stages, operations):
        assert sum(item["estimated_seconds"] for item in breakdown) == pytest.approx(report["estimated_seconds"])
    seconds = [sum(item["seconds"] for item in breakdown) for breakdown in (stages, operations)]
    assert seconds[0] == pytest.approx(seconds[1])
    assert {"client: make keys", "client: encrypt", "first query, 2 thread(s)", "query, 1 thread(s)"} <= set(rows)
    assert report["bytes"]["keys"] < report["bytes"]["keys_in_memory"]
    assert min(report["peak_memory_bytes"].values()) > report["bytes"]["up"]
    assert "stage: logits" in file.read_text()


def test_bench_model_of_random_weights() -> None:
    report = report_of(
        *("model", "--random-layers", "1", "--random-hidden", "8", "--bucket", "4", "--repeats", "1", "--threads", "1")
    )
    assert report["model"] == "random-1x8"
    assert list(report["seconds_by_threads"]) == ["1"]
    assert 0 < report["max_error_against_simulator"] < 1e-3
    assert report["max_error_of_simulator"] < 1e-9


def test_bench_precision_has_every_stage_and_layer(bundle: str) -> None:
    report = report_of("precision", "--bundle", bundle, "--bucket", "4")
    names = [item["name"] for item in report["rows"]]
    assert names[-1] == "logits"
    assert {name.partition(":")[0] for name in names} == {item["name"] for item in report["layers"]}
    for item in report["rows"]:
        assert item["min_bits"] <= item["mean_bits"] <= item["max_bits"]
        assert item["min_bits"] == pytest.approx(-np.log2(item["largest_error"]))
        assert 8 < item["min_bits"] < 36  # the scale is 2^36 and every operation adds noise
    assert report["stages"]["logits"]["imaginary"]["mean"] > 8


def test_a_random_sentence_encoder_has_coarser_scales_than_a_classifier_where_it_is_deep() -> None:
    deep = random_workload(5, 16, 4, heads=2, embedding=True).plan
    assert (deep.outputs, deep.pooling, deep.levels) == (16, "mean", 37)
    assert 30 <= deep.parameters.scale_bits < 34 <= random_workload(5, 16, 4, heads=2).plan.parameters.scale_bits


def test_a_random_shape_without_whole_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        random_workload(1, 100, 4)
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        random_workload(1, 128, 4, heads=3)
    answer = RUNNER.invoke(app, ["bench", "model", "--random-layers", "1", "--bundle", "/nowhere"])
    assert answer.exit_code == 1
    assert "give one of them" in answer.output


@pytest.mark.parametrize("tokens", [1, 7, 128])
def test_a_text_fills_its_bucket_with_whole_words(tokens: int) -> None:
    def tokenise(text: str) -> list[int]:
        return [0] * (2 * len(text.split()) + 1)  # two tokens a word and one that is special

    assert len(tokenise(text_of(tokenise, tokens))) == tokens - (tokens + 1) % 2
