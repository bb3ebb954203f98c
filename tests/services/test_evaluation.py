"""`thex evaluate` and `thex report`: modes against each other, resuming, and what is left out."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from he_runtime.bundle import Bundle
from services.answer_file import answer_file
from services.answering import Mode
from services.cli.main import app
from services.client import Client
from services.client.errors import NotBelievedError
from services.client.session import Session
from services.client.testing import FakeServer
from services.evaluation import _chosen, answered, evaluate
from services.hostile_evaluation import evaluate_hostile
from services.report.rows import Wanted, collect, majority
from services.report.tables import agreements, by_step, costs, mean_drops, spread
from services.report.write import MOST_LINES, write_report, write_results
from tests.bundles import write_small_bundle
from tests.thex.test_bundle import QUICK, TEACHER, write_task
from thex.tasks import find_task

RUNNER = CliRunner()
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
PAIRS = (
    ("good film", "a film", 4.0),
    ("bad", "the film", 1.5),
    ("was bad", "was good", 3.0),
    ("film film", "the bad film was", 2.0),
)


def write_pairs(directory: Path) -> Path:
    directory.mkdir()
    rows = [f"{i}\tg\tf\t2012\t1\tn\tn\t{first}\t{second}\t{label}" for i, (first, second, label) in enumerate(PAIRS)]
    (directory / "dev.tsv").write_text(STSB + "\n".join(rows) + "\n")
    return directory


@contextlib.contextmanager
def fake(directory: Path) -> Iterator[Client]:
    """A real client of a server on a ring that hides nothing."""
    with FakeServer(directory) as server, server.client(directory.parent / "keys", truncate=True) as client:
        yield client


def test_a_regression_of_pairs_agrees_in_the_clear_simulated_and_encrypted(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", regression_of_pairs=True)
    data = write_pairs(tmp_path / "STS-B")
    plain, simulated, encrypted = (
        evaluate(bundle, data, mode, answers=tmp_path / "answers", connect=fake)
        for mode in ("plain", "simulate", "encrypted")
    )
    assert encrypted["metric"] == "pearson"
    for found in (plain, simulated, encrypted):
        assert found["out_of_range"] == 0
        assert found["agree"] == 100
        # A fresh encryption's noise is 3.2·sqrt(N) at a scale of 2^45 at least, grown through two squares of values below 10.
        assert found["max_logit_error"] < 1e-3
        assert found["count"] == 4  # one of them is too long for a bucket, and cut in all three


def test_a_stopped_evaluation_resumes_and_changed_data_is_asked_anew(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    data = tmp_path / "SST-2"
    data.mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film {'the ' * (i % 3)}\t{i % 2}" for i in range(12)]
    (data / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    kept = answer_file(tmp_path / "answers", Bundle.open(bundle), "plain")

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(bundle, data, "plain", answers=tmp_path / "answers", progress=stop)
    assert len(kept.read_text().splitlines()) == 3
    with kept.open("a") as file:
        file.write('{"index": 5, "te')  # a crash in the middle of a line
    whole = evaluate(bundle, data, "plain", answers=tmp_path / "answers")
    assert whole["count"] == 12
    (again,) = {json.dumps(evaluate(bundle, data, "plain", answers=tmp_path / "answers", progress=stop)) for _ in "ab"}
    assert json.loads(again) == whole  # nothing was asked once more
    assert len(kept.read_text().splitlines()) == 3 + 1 + 9
    fresh = evaluate(bundle, data, "plain", answers=tmp_path / "other")
    assert fresh["value"] == whole["value"]
    rows[4] = "the the good\t0"
    (data / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    evaluate(bundle, data, "plain", answers=tmp_path / "answers")
    assert [json.loads(line)["index"] for line in kept.read_text().splitlines()[13:]] == [4]


def test_what_is_answered_already_is_known(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "STS-B")
    bundle = write_small_bundle(tmp_path / "bundle", regression_of_pairs=True)
    answers = tmp_path / "answers"
    assert answered(bundle, data, "plain", answers) == 0
    evaluate(bundle, data, "plain", limit=3, answers=answers)
    assert answered(bundle, data, "plain", answers) == 3
    assert answered(bundle, data, "simulate", answers) == 0
    (kept,) = answers.iterdir()
    kept.write_text("\n".join(kept.read_text().splitlines()[1:]))  # one of three is lost
    assert answered(bundle, data, "plain", answers) < 3


@pytest.mark.parametrize("name", ["SST-2", "sentences"])
def test_samples_grow_and_never_move(name: str) -> None:
    of = find_task(name)
    small, large, whole = (_chosen(of, 50, limit) for limit in (9, 20, None))
    assert sorted(whole) == list(range(50))
    assert whole[:20] == large
    assert large[: len(small)] == small != list(range(len(small)))
    if of.kind == "embedding":
        assert len(small) == 10
        assert all(a + 1 == b and a % 2 == 0 for a, b in zip(small[::2], small[1::2], strict=True))


def test_values_out_of_range_are_counted_and_not_scored(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "STS-B")
    bundle = write_small_bundle(tmp_path / "wide", regression_of_pairs=True)
    evaluate(bundle, data, "plain", answers=tmp_path / "a")
    logits = [json.loads(line)["logits"][0] for line in next((tmp_path / "a").iterdir()).read_text().splitlines()]
    middle = float(np.median(np.abs(logits)))
    narrow = write_small_bundle(tmp_path / "narrow", regression_of_pairs=True, logit_range=middle)
    found = evaluate(narrow, data, "plain", answers=tmp_path / "a")
    assert found["out_of_range"] == 2
    assert found["count"] == 2


@pytest.mark.parametrize("mode", ["plain", "simulate", "encrypted"])
def test_inputs_that_nobody_writes_are_answered_rightly_or_refused(tmp_path: Path, mode: Mode) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    found = evaluate_hostile(bundle, mode, answers=tmp_path / "answers", connect=fake)
    assert (found["texts"], found["refused"], found["wrong"]) == (91, 0, 0)
    assert found["answered"] == 91
    assert found["max_logit_error"] < 1e-3
    again = evaluate_hostile(bundle, mode, answers=tmp_path / "answers", connect=lambda _: pytest.fail("asked again"))
    assert again == found
    if mode == "plain":
        assert found["max_logit_error"] <= 1e-6  # kept with six digits
        narrow = evaluate_hostile(
            write_small_bundle(tmp_path / "narrow", logit_range=1e-3), mode, answers=tmp_path / "answers"
        )
        assert (narrow["refused"], narrow["answered"]) == (91, 0)


def test_an_answer_that_is_not_believed_is_refused_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an evaluation as on hostile inputs."""
    data = write_pairs(tmp_path / "STS-B")
    bundle = write_small_bundle(tmp_path / "bundle", regression_of_pairs=True)
    asked = itertools.count()
    honest = Session.decrypt

    def decrypt(*arguments: Any) -> Any:
        if next(asked) == 1:
            raise NotBelievedError("the answer holds 3 beside its outputs")
        return honest(*arguments)

    monkeypatch.setattr(Session, "decrypt", decrypt)
    found = evaluate(bundle, data, "encrypted", answers=tmp_path / "answers", connect=fake)
    assert (found["count"], found["out_of_range"], found["agree"]) == (3, 1, 100)
    assert found["plain_value"] == pytest.approx(found["value"], abs=0.1)


def test_tables_say_what_unequal_samples_say(tmp_path: Path) -> None:
    same = {"task": "T", "encoder": "e", "recipe": "r", "metric": "accuracy"}
    rows = []
    for seed, (count, agree) in enumerate(((872, 100.0), (2, 50.0))):
        rows += [
            {**same, "seed": seed, "step": "exact", "value": 80.0, "count": 872, "majority": 50.0},
            {
                **same, "seed": seed, "step": "calibrate", "value": 79.0, "drop": 1.0, "count": 872, "agreement_exact": 90.0,
                "not_exported_because": "it overflows" if seed else None,
            },
            {
                **same, "seed": seed, "step": "encrypted", "value": 80.0, "count": count, "agreement_plain": agree,
                "max_logit_error": 1e-5, "out_of_range": 0,
            },
        ]  # fmt: skip
    assert by_step(rows)[1][7].endswith("(of 2 to 872)")
    assert agreements(rows)[1][5:7] == ["874", "99.89"]
    assert [line[-1] for line in costs(rows)[1:]] == ["some operations stay exact", "it overflows"]


def test_runs_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2").parent
    wanted = Wanted(data, tmp_path / "work", ("SST-2",), ("1x64",), (QUICK,), (0, 1), None, 0, 0)
    other = QUICK.model_copy(update={"dropout": 0.5})
    for doubled in (
        dataclasses.replace(wanted, seeds=(0, 0)),
        dataclasses.replace(wanted, recipes=(QUICK, other)),
        dataclasses.replace(wanted, encoders=("a/student", "b/student")),
    ):
        with pytest.raises(ValueError, match=r"two runs would be called 'SST-2, .*, quick, seed 0'"):
            collect(doubled, lambda *_: pytest.fail("ran"), lambda _so_far: None)
    with pytest.raises(ValueError, match=r"dev\.tsv is missing"):
        collect(
            dataclasses.replace(wanted, tasks=("SST-2", "RTE")), lambda *_: pytest.fail("ran"), lambda _so_far: None
        )
    assert not (tmp_path / "work").exists()


def test_a_report_has_every_step_and_resumes(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2").parent
    wanted = Wanted(data, tmp_path / "work", ("SST-2",), ("1x64",), (QUICK,), (0, 1), None, 2, 0)
    saved: list[int] = []
    rows = collect(wanted, lambda _stage, _done, _total: None, lambda so_far: saved.append(len(so_far.rows))).rows
    assert [row["step"] for row in rows] == ["exact", "all", "calibrate", "simulated"] * 2
    assert saved == [4, 8]
    again = collect(wanted, lambda _stage, _done, _total: pytest.fail("ran again"), lambda _so_far: None)
    assert (again.rows, again.left_out) == (rows, [])
    more = dataclasses.replace(wanted, seeds=(0, 1, 2), simulated=None, encrypted=0, only_finished=True)
    finished = collect(more, lambda *_: None, lambda _so_far: None)
    assert finished.rows == rows
    (missing,) = finished.left_out
    assert missing.startswith("SST-2, 1x64, quick, seed 2: ")
    unasked = collect(dataclasses.replace(more, seeds=(0,), encrypted=5), lambda *_: None, lambda _so_far: None)
    assert unasked.left_out == ["SST-2, 1x64, quick, seed 0, encrypted: no example is answered yet"]
    other = QUICK.model_copy(update={"dropout": 0.5})  # of the same name: what is there is not this recipe's, and stays
    assert not collect(dataclasses.replace(more, recipes=(other,)), lambda *_: None, lambda _so_far: None).rows
    unchanged = collect(wanted, lambda _stage, _done, _total: pytest.fail("ran again"), lambda _so_far: None)
    assert unchanged.rows == rows
    # Rows of another report: of the same runs by digest, or not at all.
    other_machine = tmp_path / "other" / "results.json"
    write_results(rows, [], {"command": "", "machine": {"processor": "theirs"}}, other_machine.parent)
    elsewhere = dataclasses.replace(wanted, work=tmp_path / "nothing", added=(other_machine,), only_finished=True)
    added = collect(elsewhere, lambda *_: None, lambda _so_far: None).rows
    assert added == [{"machine": "theirs", **row} for row in rows]
    for different in (
        dataclasses.replace(elsewhere, recipes=(other,)),
        dataclasses.replace(elsewhere, teacher=TEACHER),
        dataclasses.replace(elsewhere, data=write_task(tmp_path / "changed" / "SST-2", "a fine film").parent),
    ):
        found = collect(different, lambda *_: None, lambda _so_far: None)
        assert (found.rows, len(found.left_out)) == ([], 2)
    other_machine.write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json is not a results\.json of `thex report`: KeyError\('rows'\)"):
        collect(elsewhere, lambda *_: None, lambda _so_far: None)
    header, line = by_step(rows)
    assert header[5:] == ["exact", "rounded", "simulated", "all", "drop"]
    assert "±" in line[5]
    assert "(of 2)" in line[7]
    assert majority(find_task("SST-2"), data / "SST-2") == 50
    assert mean_drops(rows)[1][2] == "1"
    assert spread([-1e-9]) == "0.00"
    facts = {"command": "thex report", "machine": {"cores": 1, "processor": "<test>"}}
    assert "Some rows were made on theirs." in _report(added, facts, tmp_path / "added")
    assert "Some rows" not in _report(rows, facts, tmp_path / "out")
    files = write_report(rows, finished.left_out, facts, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (written["rows"], written["left_out"]) == (rows, [missing])
    assert f"- {missing}" in (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;test&gt;" in page
    assert page.count("<img") == sum(path.suffix == ".png" for path in files) == 2
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in files if path.suffix == ".png")
    many = [f"{missing} {number}" for number in range(MOST_LINES + 1)]
    write_report(rows, many, facts, tmp_path / "many")
    assert json.loads((tmp_path / "many" / "results.json").read_text())["left_out"] == many
    assert f"- {len(many)} of what was wanted is not there" in (tmp_path / "many" / "report.md").read_text()


def _report(rows: list[dict[str, Any]], facts: dict[str, Any], directory: Path) -> str:
    write_report(rows, [], facts, directory)
    return (directory / "report.md").read_text()


def test_the_commands_print_one_object_or_one_line(tmp_path: Path) -> None:
    bundle, data = write_small_bundle(tmp_path / "bundle", regression_of_pairs=True), write_pairs(tmp_path / "STS-B")
    arguments = ["evaluate", str(bundle), "--data", str(data), "--answers", str(tmp_path / "answers"), "--json"]
    found = json.loads(RUNNER.invoke(app, [*arguments, "--limit", "3"]).stdout)
    assert {"task", "metric", "value", "count", "agree", "max_logit_error", "out_of_range"} <= found.keys()
    assert (found["task"], found["count"]) == ("STS-B", 3)
    for wrong, message in (
        ([*arguments, "--mode", "guess"], "unknown mode 'guess': expected one of plain, simulate, encrypted"),
        (["evaluate", str(bundle), "--data", str(tmp_path)], "dev.tsv is missing"),
        (["evaluate", str(bundle), "--hostile", "--limit", "3"], "--hostile asks all of its inputs"),
        (["evaluate", str(tmp_path / "[/b] bundle")], "nothing to ask"),
        (["evaluate", str(tmp_path / "[/b] bundle"), "--hostile"], "[/b] bundle is not a bundle"),
        (["report", "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--recipes", "x"], "unknown recipe 'x'"),
        (["train", "--data", str(tmp_path / "STS"), "--out", str(tmp_path / "o")], "unknown task 'STS'"),
    ):
        result = RUNNER.invoke(app, wrong)
        assert result.exit_code == 1
        assert message in result.output.replace("\n", " ")
        assert "Traceback" not in result.output
