"""A minute of fuzzing, shared among the targets."""

import pytest

from tests.hostile.fuzz_all import TARGETS, fuzz

pytest.importorskip("atheris", reason="install the extra `fuzz`")
pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_of_fuzzing_finds_nothing(target: str) -> None:
    found = fuzz(target, 60 // len(TARGETS))
    assert found.exit_code == 0, found.last
    assert found.executions > 100
    assert found.slowest_seconds <= 1
    assert found.peak_memory_mb < 600
