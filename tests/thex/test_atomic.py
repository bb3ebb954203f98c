"""Files that are whole or absent, and work that two processes do once."""

import threading
from pathlib import Path

import pytest

from thex.atomic import alone, replaced, write_text


def _stop_half_way(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with replaced(path) as partial:
        partial.write_text("ne")
        assert path.read_text() == "old"
        with replaced(path) as another:  # another process, at the same time
            another.write_text("theirs")
        assert path.read_text() == "theirs"
        partial.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="full"), replaced(path) as partial:
        _stop_half_way(partial)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_one_at_a_time_is_in_a_directory(tmp_path: Path) -> None:
    seen: list[str] = []
    inside, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with alone(tmp_path / "a"):
            inside.set()
            may_end.wait(10)
            seen.append("first")

    def second() -> None:
        with alone(tmp_path / "a"):
            seen.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    with alone(tmp_path / "b"):
        seen.append("elsewhere")
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert seen == ["elsewhere", "first", "second"]
