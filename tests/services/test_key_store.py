"""Keys on disk: whatever moment a process ends at, what was acknowledged is there and nothing else is."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from he_runtime.errors import WireError
from services.server import key_store
from services.server.key_store import KeyStore
from services.server.limits import Limits
from tests.services.served import ALICE, BOB, KEY_SET_BYTES, KEYS, key_message, served_model

LIMITS = Limits(disk_reserve_bytes=0, key_sets_per_client=2)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def open_store(directory: Path, limits: Limits = LIMITS, clock: Clock | None = None) -> KeyStore:
    return KeyStore(directory / "keys", served_model(directory), limits, monotonic=clock or Clock())


def send(store: KeyStore, name: str, tenant: str, element: int, content: bytes, step: int = 500) -> bool:
    whole = False
    for offset in range(0, len(content), step):
        whole = store.append(name, tenant, element, offset, content[offset : offset + step])
    return whole


def fill(store: KeyStore, tenant: str, fill: int = 0) -> str:
    name = store.create(tenant)
    for element in KEYS:
        assert send(store, name, tenant, element, key_message(element, fill=fill))
    return name


def reason(action, *arguments: object) -> str:
    with pytest.raises(WireError) as caught:
        action(*arguments)
    return caught.value.reason


def objects(directory: Path) -> set[str]:
    return {path.name for path in (directory / "keys" / "objects").rglob("*") if path.is_file()}


def test_keys_survive_a_restart_and_files_are_private(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = fill(store, ALICE)
    before = store.files(name, ALICE)
    store.close()
    again = open_store(tmp_path)
    assert again.is_complete(name, ALICE)
    assert again.files(name, ALICE) == before
    for element, path in before.items():
        assert Path(path).read_bytes() == key_message(element)
        assert Path(path).stat().st_mode & 0o077 == 0
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_another_tenants_set_is_as_one_that_does_not_exist(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = fill(store, ALICE)
    messages = set()
    for wanted in (name, "f" * 32, "", "../../etc/passwd", name.upper()):
        for action in (store.complete, store.is_complete, store.files, store.delete):
            with pytest.raises(WireError) as caught:
                action(wanted, BOB)
            messages.add((caught.value.reason, str(caught.value)))
        assert reason(store.append, wanted, BOB, 3, 0, b"THEXWIRE") == "unknown_key_set"
    assert len(messages) == 1
    assert store.is_complete(name, ALICE)


def test_content_is_shared_within_a_tenant_only(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, second, other = fill(store, ALICE), fill(store, ALICE), fill(store, BOB)
    assert store.files(first, ALICE) == store.files(second, ALICE)
    assert not set(store.files(first, ALICE).values()) & set(store.files(other, BOB).values())
    store.delete(first, ALICE)
    assert all(Path(path).exists() for path in store.files(second, ALICE).values())
    store.delete(second, ALICE)
    assert len(list((tmp_path / "keys" / "objects").rglob("*"))) == 1 + len(KEYS)  # bob's folder and keys


def test_an_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name, content = store.create(ALICE), key_message(3)
    store.append(name, ALICE, 3, 0, content[:700])
    store.close()
    store = open_store(tmp_path)
    part = store.partial(name)
    assert part is not None
    assert (part.element, part.size_bytes) == (3, 700)
    assert reason(store.append, name, ALICE, 3, 699, content[699:]) == "wrong_offset"
    assert store.append(name, ALICE, 3, 700, content[700:])
    assert store.complete(name, ALICE) == [3]
    assert store.partial(name) is None


def test_of_parts_that_are_here_the_one_that_came_last_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = store.create(ALICE)
    for newest, element in enumerate((9, 0, 3)):  # an order that neither names nor sizes have, up or down
        store.append(name, ALICE, element, 0, key_message(element)[: 300 + element])
        os.utime(tmp_path / "keys" / "partial" / f"{name}-{element}", ns=(newest, newest))
    part = store.partial(name)
    assert part is not None
    assert (part.element, part.sha256) == (3, hashlib.sha256(key_message(3)[:303]).digest())
    for element in (9, 0):  # the others are taken anew
        assert store.append(name, ALICE, element, 0, key_message(element))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c[:200] + bytes([c[200] ^ 1]) + c[201:], "digest_mismatch"),
        (lambda c: c + b"x", "oversize"),
        (lambda c: b"THEXSECR" + c[8:], "secret_key_refused"),
        (lambda c: b"\x5e\xa1" + c[2:], "secret_key_refused"),
        (lambda c: bytes(len(c)), "bad_magic"),
        (lambda _: key_message(0, level=2), "wrong_level"),
    ],
)
def test_what_is_not_the_planned_key_leaves_nothing(tmp_path: Path, change, expected: str) -> None:
    store = open_store(tmp_path)
    name = store.create(ALICE)
    assert reason(send, store, name, ALICE, 3, change(key_message(3))) == expected
    assert store.partial(name) is None
    assert store.complete(name, ALICE) == []
    assert reason(store.append, name, ALICE, 5, 0, key_message(3)) == "unwanted_key"


def test_quota_budget_and_least_recently_used(tmp_path: Path) -> None:
    clock = Clock()
    limits = LIMITS.model_copy(update={"key_store_bytes": 3 * KEY_SET_BYTES})
    store = open_store(tmp_path, limits, clock)
    sets = []
    for tenant in (ALICE, ALICE, BOB):
        clock.seconds += 1
        sets.append(fill(store, tenant, fill=len(sets)))
    assert reason(store.create, ALICE) == "quota_exceeded"
    clock.seconds += 1
    store.files(sets[0], ALICE)  # used: now the second is the oldest
    store.create("c" * 32)
    assert store.is_complete(sets[0], ALICE)
    assert reason(store.complete, sets[1], ALICE) == "unknown_key_set"
    for name in store.index.names():
        store.pin(name)
    assert reason(store.create, "d" * 32) == "store_full"
    assert (
        reason(open_store(tmp_path, LIMITS.model_copy(update={"key_store_bytes": 10})).create, "d" * 32) == "store_full"
    )


def test_sets_in_use_keep_their_files_until_nobody_needs_them(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = fill(store, ALICE)
    paths = store.files(name, ALICE)
    store.pin(name)
    store.delete(name, ALICE)
    assert reason(store.files, name, ALICE) == "unknown_key_set"
    assert all(Path(path).exists() for path in paths.values())
    store.unpin(name)
    assert not objects(tmp_path)


def test_a_key_that_is_sent_once_more_leaves_no_file_behind(tmp_path: Path) -> None:
    """Else a client fills the disk beyond every budget."""
    store = open_store(tmp_path)
    name = fill(store, ALICE)
    for again in range(1, 4):
        assert send(store, name, ALICE, 3, key_message(3, fill=again))
        assert len(objects(tmp_path)) == len(KEYS)
    store.pin(name)  # a worker may be about to open it
    assert send(store, name, ALICE, 3, key_message(3, fill=9))
    assert len(objects(tmp_path)) == len(KEYS) + 1
    store.unpin(name)
    assert len(objects(tmp_path)) == len(KEYS)


def test_unused_keys_expire_by_uptime_whatever_the_wall_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store = open_store(tmp_path, LIMITS, clock)
    name = fill(store, ALICE)
    monkeypatch.setattr("time.time", lambda: 4e9)  # the year 2096
    store.sweep()
    assert store.is_complete(name, ALICE)
    clock.seconds += LIMITS.key_store_seconds / 2
    store.sweep()
    store.close()
    clock = Clock()  # a restart, after years
    store = open_store(tmp_path, LIMITS, clock)
    store.sweep()
    assert store.is_complete(name, ALICE)
    clock.seconds += LIMITS.key_store_seconds / 2 + 1
    store.sweep()
    assert reason(store.complete, name, ALICE) == "unknown_key_set"
    assert not objects(tmp_path)
    unfinished = store.create(ALICE)
    store.append(unfinished, ALICE, 3, 0, key_message(3)[:100])
    clock.seconds += LIMITS.unfinished_seconds + 1
    store.sweep()
    assert reason(store.complete, unfinished, ALICE) == "unknown_key_set"
    assert not list((tmp_path / "keys" / "partial").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    store = open_store(tmp_path)
    name, content = store.create(ALICE), key_message(3)
    store.append(name, ALICE, 3, 0, content[:700])
    write = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        if len(data) > 10:
            return write(descriptor, data[:10])
        raise OSError(number, "full")

    with monkeypatch.context() as patch:
        patch.setattr(key_store.os, "write", half_then_full)
        assert reason(store.append, name, ALICE, 3, 700, content[700:720]) == "disk_full"
    part = store.partial(name)
    assert part is not None
    assert part.size_bytes == 700
    assert store.append(name, ALICE, 3, 700, content[700:])
    tight = LIMITS.model_copy(update={"disk_reserve_bytes": 1 << 60})
    assert reason(open_store(tmp_path, tight).create, ALICE) == "disk_full"


class Crash(BaseException):
    """The process ends here."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_crash_at_any_step_loses_nothing_acknowledged(tmp_path: Path, data: st.DataObject) -> None:
    """At a random system call of a random step the process stops; the next one has what was acknowledged, and only whole keys."""
    directory = tmp_path / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    store = open_store(directory)
    kept = fill(store, ALICE, fill=1)
    countdown = data.draw(st.integers(0, 40), "calls before the crash")
    with pytest.MonkeyPatch.context() as patch:

        def crashing(function):
            def wrapper(*arguments, **options):
                nonlocal countdown
                countdown -= 1
                if countdown < 0:
                    raise Crash
                return function(*arguments, **options)

            return wrapper

        patch.setattr(key_store.os, "write", crashing(os.write))
        patch.setattr(key_store.os, "fsync", crashing(os.fsync))
        patch.setattr(Path, "rename", crashing(Path.rename))
        patch.setattr(Path, "unlink", crashing(Path.unlink))
        for name in ("add_set", "add_key", "remove_set", "touch"):
            patch.setattr(store.index, name, crashing(getattr(store.index, name)))
        acknowledged: dict[str, set[int]] = {kept: set(KEYS)}
        deleted = None
        try:
            name = store.create(ALICE)
            acknowledged[name] = set()
            for element in KEYS:
                send(store, name, ALICE, element, key_message(element))
                acknowledged[name].add(element)
            deleted = name
            store.delete(name, ALICE)
        except Crash:
            pass
    store.index.close()  # what the kernel does for a process that ends
    again = open_store(directory)
    for name, elements in acknowledged.items():
        if name == deleted and not again.index.has_set(name, ALICE):
            continue
        assert set(again.complete(name, ALICE)) >= elements
        for element, path in again.files(name, ALICE).items():
            assert Path(path).read_bytes() == key_message(element, fill=int(name == kept))
    needed = {digest for _, digest in again.index.files()}
    assert objects(directory) == needed
    again.close()


def test_keys_of_a_former_model_and_strange_files_go_at_the_start(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = fill(store, ALICE)
    lost = Path(store.files(name, ALICE)[3])
    other = fill(store, BOB)
    store.index._database.execute("UPDATE key_sets SET program = 'former' WHERE name = ?", (other,))
    store.close()
    lost.unlink()
    (tmp_path / "keys" / "partial" / f"{'e' * 32}-3").write_bytes(b"of nobody")
    store = open_store(tmp_path)
    assert store.complete(name, ALICE) == [0, 9]
    assert reason(store.complete, other, BOB) == "unknown_key_set"
    assert not list((tmp_path / "keys" / "partial").iterdir())
