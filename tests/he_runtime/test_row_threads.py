"""Rows shared out to threads."""

import threading
import time

import pytest

from he_runtime.engines.row_threads import RowThreads


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 16])
def test_every_row_is_given_once_in_parts_that_differ_by_one_at_most(threads: int, rows: int) -> None:
    parts: list[tuple[int, int]] = []
    RowThreads(threads).each(rows, lambda first, last: parts.append((first, last)))
    parts.sort()
    assert [row for first, last in parts for row in range(first, last)] == list(range(rows))
    sizes = {last - first for first, last in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_nothing_runs_any_more_when_one_part_failed(failing: int) -> None:
    done = threading.Semaphore(0)

    def task(first: int, _last: int) -> None:
        if first == failing:
            raise ArithmeticError(first)
        time.sleep(0.1)
        done.release()

    with pytest.raises(ArithmeticError):
        RowThreads(3).each(3, task)
    assert done.acquire(blocking=False)
    assert done.acquire(blocking=False)


def test_no_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one thread"):
        RowThreads(0)
