"""What every benchmark shares: rows, Markdown, the machine, memory, and clocks that take turns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import benchmarks
from benchmarks.machine import machine
from benchmarks.memory import own_bytes, peak_bytes, processes_below
from benchmarks.report import markdown, row
from benchmarks.timing import taking_turns
from services.cli.bench import app


def test_a_row_says_how_many_times_ours_is_faster() -> None:
    assert row("ntt", 2.0) == {"name": "ntt", "seconds": 2.0}
    assert row("ntt", 2.0, 9.0) == {"name": "ntt", "seconds": 2.0, "seal_seconds": 9.0, "ratio": 4.5}


def test_markdown_has_every_row_every_figure_and_the_machine() -> None:
    report = {
        "rows": [row("a | b", 0.5, 1.0), row("alone", 0.25)],
        "bytes": {"up": 17},
        "layers": [{"name": "one", "bits": 20.5}],
        "seconds_per_query": 1.5,
        "machine": {"processor": "X", "flags": ["avx2", "fma"]},
    }
    assert markdown("Title", report).splitlines() == [
        "# Title",
        "",
        "| name | seconds | seal_seconds | ratio |",
        "| --- | ---: | ---: | ---: |",
        "| a \\| b | 0.5 | 1 | 2 |",
        "| alone | 0.25 |  |  |",
        "",
        "## layers",
        "",
        "| name | bits |",
        "| --- | ---: |",
        "| one | 20.5 |",
        "",
        "- bytes, up: 17",
        "- seconds_per_query: 1.5",
        "",
        "Measured on: processor X, flags avx2 fma",
    ]


def test_the_machine_is_named() -> None:
    described = machine()
    assert json.loads(json.dumps(described)) == described
    assert described["processor"]
    assert "fma" in described["flags"]  # README: an x86 with FMA is needed
    assert described["numpy"] == np.__version__
    assert described["memory_bytes"] > 1 << 30


def test_memory_of_this_and_of_other_processes() -> None:
    before = peak_bytes()
    block = np.ones(1 << 24)  # 128 MiB, written
    assert peak_bytes() >= own_bytes() >= block.nbytes
    del block
    assert peak_bytes() >= before
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        while len(below := list(processes_below(child.pid))) < 2:
            assert child.poll() is None
        assert below[0] == child.pid
        assert peak_bytes(below[1]) > 0
        assert set(below) < set(processes_below(os.getpid()))
        child.communicate(b"\n")


def test_calls_take_turns_and_the_median_counts() -> None:
    order: list[str] = []
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 27.0, 30.0, 31.0, 40.0, 100.0, 200.0, 201.0])
    medians = taking_turns(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, clock=lambda: next(ticks)
    )
    assert order == ["a", "b"] * 4  # one untimed round, three timed
    assert medians == {"a": 7.0, "b": 1.0}


def test_the_readme_names_every_command_and_every_file() -> None:
    folder = Path(benchmarks.__file__).parent
    text = (folder / "README.md").read_text()
    commands = {command.name for command in app.registered_commands}
    assert set(re.findall(r"\| `thex bench (\w+)", text)) == commands
    named = set(re.findall(r"`(\w+\.py)`", text.partition("## Files")[2]))
    assert named == {file.name for file in folder.glob("*.py")} - {"__init__.py"}
