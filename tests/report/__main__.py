"""Write docs/attack-report.md: `python -m tests.report`.

About 25 minutes on two cores; `--fuzz-seconds 450` makes an hour of fuzzing of it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.chaos.soak import soak
from tests.hostile.fuzz_all import fuzz_all
from tests.report.board_run import live, picture

ROOT = Path(__file__).parents[2]
SUITES = {
    "hostile": ("-m", "hostile", "tests/hostile"),
    "chaos": ("-m", "chaos and not slow", "tests/chaos"),
    "serving": ("tests/services/test_serving.py",),
    "key store": ("tests/services/test_key_store.py",),
    "client": ("tests/services/test_client.py",),
}
PICTURE = Path("figures") / "board.png"


@dataclass(frozen=True)
class Suite:
    """What a run of pytest gave."""

    command: str
    passed: int
    failed: int
    seconds: float
    tests: dict[str, float]
    """Name -> seconds."""
    failures: list[str]
    """Names."""


def run_suite(*arguments: str) -> Suite:
    """Run pytest, and read its own record of it."""
    with tempfile.TemporaryDirectory() as place:
        record = Path(place) / "record.xml"
        command = ["pytest", "-q", "-p", "no:randomly", *arguments]
        subprocess.run(
            [sys.executable, "-m", *command, f"--junitxml={record}"], cwd=ROOT, check=False, capture_output=True
        )
        cases = list(ElementTree.parse(record).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    seconds = {str(case.get("name")): round(float(case.get("time", 0)), 2) for case in cases}
    return Suite(
        " ".join(command),
        len(cases) - len(failed),
        len(failed),
        round(sum(seconds.values()), 1),
        seconds,
        [str(case.get("name")) for case in failed],
    )


def machine() -> str:
    """In words."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{models[0].partition(': ')[2]}, {os.cpu_count()} cores, Python {platform.python_version()}"


def growth(samples: list[dict[str, Any]], what: str) -> float:
    """From the middle of the soak to its end, as a share."""
    return float(samples[-1][what] / samples[len(samples) // 2 - 1][what] - 1)


def write(out: Path, results: dict[str, Any]) -> None:
    """The report, from what was measured and nothing else."""
    suites: dict[str, Suite] = results["suites"]
    fuzzed, samples = results["fuzz"], results["soak"]
    lines = [
        "# Attack report",
        "",
        f"Written by `python -m tests.report` on {time.strftime('%Y-%m-%d')}; {machine()}; other work ran beside it. Servers are real processes with TLS",
        "on loopback; rings of 256 (`insecure_test`), so that a query takes 40 ms and the loops are long. Raw numbers: [attack-report.json](attack-report.json).",
        "",
        "| suite | passed | failed | seconds |",
        "|---|---|---|---|",
        *(
            f"| {name}: `{suite.command}` | {suite.passed} | {suite.failed} | {suite.seconds} |"
            for name, suite in suites.items()
        ),
        "",
        *(f"**Failed in this run:** `{name}`." for suite in suites.values() for name in suite.failures),
        *(f"{part} ran before, by `{command}`." for part, command in results.get("before", {}).items()),
        *(f"The suite `{name}` failed at first and was run anew after a fix." for name in results.get("again", [])),
        "What the sections say below is what the tests of that section assert; it holds where they passed.",
        "",
        "## 1. Hostile bytes",
        "",
        f"{results['corpus']} committed corrupt messages, each refused for the reason in its name; every prefix of a message of each kind; every flipped bit of every",
        "head; the defects again in queries and keys, noise and truncated requests to every method of a running server: each refused within a second with a",
        "reason of docs/errors.md, the front's memory within 20 to 30 MiB of what it was, an honest query answered afterwards.",
        "",
        f"Fuzzing (Atheris, coverage-guided, invariants in `tests/hostile/fuzz.py`): {sum(one['seconds'] for one in fuzzed) / 3600:.2f} hours of targets' time in all,",
        f"{sum(one['executions'] for one in fuzzed):,} executions, {sum(one['exit_code'] != 0 for one in fuzzed)} findings.",
        "",
        "| target | seconds | executions | inputs that reached new code | slowest, s | peak memory, MB | found |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {one['target']} | {one['seconds']:.0f} | {one['executions']:,} | {one['new_inputs']} | {one['slowest_seconds']} | {one['peak_memory_mb']} "
            f"| {'nothing' if one['exit_code'] == 0 else 'see the log'} |"
            for one in fuzzed
        ),
        "",
        "## 2. Chaos",
        "",
        "Four clients ask without end on loopback, while:",
        "",
        "| | seconds |",
        "|---|---|",
        *(
            f"| {name.removeprefix('test_').replace('_', ' ')} | {seconds} |"
            for name, seconds in suites["chaos"].tests.items()
        ),
        "",
        "Each client ended with the right answer or a refusal with a known reason; key sets kept their names across kill -9 of the front, and uploads went on where",
        "they were. The full disk is once a limit on the size of files (RLIMIT_FSIZE) put on the running front, once a file system of its own that is full. The clock is the",
        "one that Python reads: thirty years ahead, thirty years back. A crash at every step of the key store's writing is in the default suite.",
        "",
        "## 3. Soak",
        "",
        f"{samples[-1]['sessions']} sessions, each with keys of its own, an upload, a self-test, a query, and for every second one a deletion:",
        "",
        "| sessions | front MB | files | threads | worker MB | files | threads | keys on disk, MB |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {one['sessions']} | {one['front_memory_bytes'] / 1e6:.1f} | {one['front_files']} | {one['front_threads']} | {one['worker_memory_bytes'] / 1e6:.1f} "
            f"| {one['worker_files']} | {one['worker_threads']} | {one['stored_bytes'] / 1e6:.1f} |"
            for one in samples[:: max(1, len(samples) // 10)][1:] + samples[-1:]
        ),
        "",
        f"In the second half the front grew by {growth(samples, 'front_memory_bytes'):.1%}, the worker by {growth(samples, 'worker_memory_bytes'):.1%}.",
        "",
        "## 4. Two tenants",
        "",
        "With two tokens, every method was called by one tenant with the other's key set and with an invented one: the ten answers are the same pair by pair, status,",
        "reason and text (`unknown_key_set`).",
        "",
        "| test | seconds |",
        "|---|---|",
        *(
            f"| {name.removeprefix('test_').replace('_', ' ')} | {seconds} |"
            for name, seconds in suites["serving"].tests.items()
        ),
        "",
        "## 5. Metrics and board",
        "",
        f"{results['board_seconds']:.0f} seconds of a server with four clients and one that sends garbage, scraped twice a second; the worker was killed half-way.",
        "The panels are those of `deploy/grafana/dashboards/thex.json`, drawn by matplotlib from the scraped data ([board.csv](figures/board.csv)).",
        "",
        f"![board]({PICTURE})",
        "",
    ]
    out.write_text("\n".join(lines))


def main() -> None:
    """Run everything, or take the long parts from files of former runs, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "attack-report.md")
    parser.add_argument("--fuzz-seconds", type=int, default=60, help="for each of eight targets; 450 makes an hour")
    parser.add_argument("--fuzz-results", type=Path, help="what `python -m tests.hostile.fuzz_all --out` wrote")
    parser.add_argument("--soak-sessions", type=int, default=500)
    parser.add_argument("--soak-results", type=Path, help="what `python -m tests.chaos.soak --out` wrote")
    parser.add_argument("--board-seconds", type=float, default=60)
    parser.add_argument(
        "--again", action="store_true", help="run anew only the suites that failed in the report that is there"
    )
    arguments = parser.parse_args()
    if arguments.again:
        _again(arguments.out)
        return
    suites = {name: run_suite(*selection) for name, selection in SUITES.items()}
    if arguments.fuzz_results:
        fuzzed = json.loads(arguments.fuzz_results.read_text())
    else:
        fuzzed = [asdict(one) for one in fuzz_all(arguments.fuzz_seconds, 2)]
    with tempfile.TemporaryDirectory(prefix="thex-report-") as place:
        if arguments.soak_results:
            samples = json.loads(arguments.soak_results.read_text())
        else:
            samples = [asdict(one) for one in soak(arguments.soak_sessions, Path(place) / "soak")]
        times, series = live(Path(place) / "board", arguments.board_seconds)
    figure = arguments.out.parent / PICTURE
    figure.parent.mkdir(parents=True, exist_ok=True)
    picture(times, series, figure)
    results = {
        "suites": suites,
        "fuzz": fuzzed,
        "soak": samples,
        "corpus": len(list((ROOT / "tests" / "hostile" / "corpus").glob("*.bin"))),
        "board_seconds": times[-1],
        "before": {
            part: command
            for part, command, file in (
                ("Fuzzing", "python -m tests.hostile.fuzz_all", arguments.fuzz_results),
                ("The soak", "python -m tests.chaos.soak", arguments.soak_results),
            )
            if file is not None
        },
    }
    _keep(arguments.out, results)


def _keep(out: Path, results: dict[str, Any]) -> None:
    write(out, results)
    plain = {
        **results,
        "suites": {name: asdict(suite) for name, suite in results["suites"].items()},
        "machine": machine(),
    }
    out.with_suffix(".json").write_text(json.dumps(plain, indent=1))


def _again(out: Path) -> None:
    results = json.loads(out.with_suffix(".json").read_text())
    suites = {name: Suite(**suite) for name, suite in results["suites"].items()}
    for name, suite in suites.items():
        if suite.failed:
            suites[name] = run_suite(*SUITES[name])
    repeated = sorted({*results.get("again", []), *(name for name in suites if results["suites"][name]["failed"])})
    _keep(out, {**results, "suites": suites, "again": repeated})


if __name__ == "__main__":
    main()
