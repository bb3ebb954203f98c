"""All fuzz targets, each in a process of its own: `python -m tests.hostile.fuzz_all --seconds 450 --out fuzz.json`."""

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

TARGETS = ("key", "fresh", "result", "answer", "frames", "plan", "tokens", "store")


@dataclass(frozen=True)
class Fuzzed:
    """What came of one target."""

    target: str
    seconds: float
    executions: int
    new_inputs: int
    slowest_seconds: int
    peak_memory_mb: int
    exit_code: int
    """0: nothing found. Otherwise `last` says what."""
    last: str


def fuzz(target: str, seconds: int) -> Fuzzed:
    """Run one target for so long."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzz", target, "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr

    def statistic(name: str) -> int:
        found = re.search(rf"stat::{name}:\s+(\d+)", output)
        return int(found[1]) if found else -1

    return Fuzzed(
        target,
        round(time.monotonic() - started, 1),
        statistic("number_of_executed_units"),
        statistic("new_units_added"),
        statistic("slowest_unit_time_sec"),
        statistic("peak_rss_mb"),
        done.returncode,
        "" if done.returncode == 0 else output[-2000:],
    )


def fuzz_all(seconds: int, parallel: int) -> list[Fuzzed]:
    """Every target for so many seconds, several at a time."""
    with ThreadPoolExecutor(parallel) as threads:
        return list(threads.map(lambda target: fuzz(target, seconds), TARGETS))


def main() -> None:
    """Run, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=450, help="for each target; 450 makes an hour of all eight")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = fuzz_all(arguments.seconds, arguments.parallel)
    arguments.out.write_text(json.dumps([asdict(one) for one in found], indent=1))
    raise SystemExit(any(one.exit_code for one in found))


if __name__ == "__main__":
    main()
