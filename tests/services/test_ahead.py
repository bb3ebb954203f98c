"""Items come in order, never too many ahead; errors arrive; the thread ends."""

import threading
from collections.abc import Iterator

import pytest

from services.client.ahead import made_ahead


def test_items_come_in_order_and_errors_where_they_happened() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the sixth")

    seen: list[int] = []
    with made_ahead(items(), 2) as ahead, pytest.raises(ValueError, match="the sixth"):  # noqa: PT012
        for item in ahead:
            seen.append(item)
    assert seen == list(range(5))


def test_the_maker_waits_for_the_reader_and_ends_with_the_block() -> None:
    made, third = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with made_ahead(items(), 2) as ahead:
        assert third.wait(5)  # two in the queue and one in hand, with nothing read
        assert len(made) == 3
        assert next(ahead) == 0
    assert len(made) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name == "made-ahead"]
