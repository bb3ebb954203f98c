"""Items come in order, never too many ahead; errors arrive; the threads end."""

import threading

import pytest

from services.client.ahead import made_ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_items_come_in_order_and_errors_where_they_happened(threads: int) -> None:
    later = threading.Event()

    def make(number: int) -> int:
        if number == 5:
            raise ValueError("the sixth")
        if threads > 1 and number == 0:
            later.wait(5)  # a later item is finished first
        if number == 1:
            later.set()
        return number

    seen: list[int] = []
    with made_ahead(make, range(9), threads=threads, depth=3) as ahead, pytest.raises(ValueError, match="the sixth"):
        seen.extend(ahead)
    assert seen == list(range(5))


def test_the_makers_wait_for_the_reader_and_end_with_the_block() -> None:
    made, third = [], threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if len(made) == 4:
            third.set()
        return number

    with made_ahead(make, range(100), threads=2, depth=3) as ahead:
        assert next(ahead) == 0
        assert third.wait(5)  # three ahead of the one that was read
        assert sorted(made) == [0, 1, 2, 3]
    assert len(made) == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("made-ahead")]
    assert list(ahead) == [1, 2, 3]  # what was made, and nothing new


def test_a_reader_in_another_thread_is_released_with_the_block() -> None:
    started, go = threading.Event(), threading.Event()

    def make(number: int) -> int:
        started.set()
        go.wait(5)
        return number

    seen: list[int] = []
    with made_ahead(make, range(100), threads=1, depth=2) as ahead:
        reader = threading.Thread(target=lambda: seen.extend(ahead))
        reader.start()
        assert started.wait(5)
        threading.Timer(0.05, go.set).start()
    reader.join(5)
    assert not reader.is_alive()
    assert seen in ([], [0])
