"""Plaintexts from the cache are those that the engine encodes; a damaged file is encoded again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from he_runtime import constant_cache
from he_runtime.bundle import Bundle
from he_runtime.cache_directory import default_cache_directory
from he_runtime.constant_cache import CacheError, cache_file, constants_of, wants_compact_tables
from he_runtime.engines.numba_engine import NumbaEngine, NumbaPlaintext
from he_runtime.plan import Plan
from services.client.testing import insecure_test_plan
from tests.bundles import write_small_bundle

Constants = dict[int, list[NumbaPlaintext]]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """With tables of linear transforms among its plaintexts."""
    return insecure_test_plan(
        Bundle.open(write_small_bundle(tmp_path_factory.mktemp("bundle") / "small")), lowering="hadamard sums"
    )


@pytest.fixture(scope="module", params=[False, True], ids=["encoded", "compact"])
def engine(plan: Plan, request: pytest.FixtureRequest) -> NumbaEngine:
    return NumbaEngine(plan.parameters, compact_tables=request.param)


@pytest.fixture(scope="module")
def encoded(plan: Plan, engine: NumbaEngine) -> Constants:
    return constants_of(plan, engine, None)


def refuse(*_: object) -> NumbaPlaintext:
    raise AssertionError("the cache was not used")


def assert_same(left: Constants, right: Constants) -> None:
    assert left.keys() == right.keys()
    for bucket in left:
        for a, b in zip(left[bucket], right[bucket], strict=True):
            assert a.scale == b.scale
            np.testing.assert_array_equal(a.words, b.words)


def test_the_second_start_encodes_nothing(
    plan: Plan, engine: NumbaEngine, encoded: Constants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "new" / "cache"
    assert_same(constants_of(plan, engine, directory), encoded)
    assert [file.name for file in directory.iterdir()] == [
        cache_file(directory, plan, engine).name
    ]  # no temporary is left
    assert cache_file(directory, plan, engine).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(NumbaEngine, "encode", refuse)
    mapped = constants_of(plan, engine, directory)
    assert_same(mapped, encoded)
    words = mapped[4][0].words
    assert not words.flags.owndata
    assert words.ctypes.data % 8 == 0


@pytest.mark.parametrize("where", ["empty", "magic", "table", "words", "size", "short", "other"])
def test_a_damaged_file_is_encoded_again_and_replaced(
    plan: Plan, engine: NumbaEngine, encoded: Constants, tmp_path: Path, where: str
) -> None:
    constants_of(plan, engine, tmp_path)
    path = cache_file(tmp_path, plan, engine)
    good = path.read_bytes()
    flip = {"magic": 0, "table": 100, "words": len(good) - 4096, "size": 55}

    def flipped(position: int) -> bytes:
        return good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]

    if where == "other":  # whole, but of another plan, under this one's name
        other = dataclasses.replace(plan, digest="0" * 64)
        constants_of(other, engine, tmp_path)
        cache_file(tmp_path, other, engine).replace(path)
    elif where == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(good[:-64] if where == "short" else flipped(flip[where]))
    assert path.read_bytes() != good
    with pytest.raises(CacheError):
        constant_cache.read(path, constant_cache._digest(plan, engine), {}, engine)
    assert_same(constants_of(plan, engine, tmp_path), encoded)
    assert path.read_bytes() == good


def test_changed_numbers_in_an_unchanged_program_are_encoded_again(
    plan: Plan, engine: NumbaEngine, tmp_path: Path
) -> None:
    constants_of(plan, engine, tmp_path)
    program = plan.programs[4]
    first, *rest = program.constants
    changed = dataclasses.replace(program, constants=(dataclasses.replace(first, values=first.values + 1), *rest))
    altered = dataclasses.replace(plan, programs={4: changed})
    assert altered.digest == plan.digest
    assert_same(constants_of(altered, engine, tmp_path), constants_of(altered, engine, None))


def test_engines_that_keep_tables_otherwise_have_files_of_their_own(plan: Plan, tmp_path: Path) -> None:
    sizes = []
    for compact in (False, True):
        engine = NumbaEngine(plan.parameters, compact_tables=compact)
        constants_of(plan, engine, tmp_path)
        sizes.append(cache_file(tmp_path, plan, engine).stat().st_size)
    assert len(list(tmp_path.iterdir())) == 2
    assert sizes[1] < sizes[0] / 2  # tables have 8 to 16 rows at this small plan's levels, and vectors stay as they are


def test_compact_tables_are_wanted_where_encoded_ones_would_be_too_large(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not wants_compact_tables(plan)
    engine = NumbaEngine(plan.parameters)
    constants_of(plan, engine, tmp_path)
    size = cache_file(tmp_path, plan, engine).stat().st_size  # little more than its words
    monkeypatch.setattr(constant_cache, "MOST_ENCODED_BYTES", size)
    assert not wants_compact_tables(plan)
    monkeypatch.setattr(constant_cache, "MOST_ENCODED_BYTES", size * 9 // 10)
    assert wants_compact_tables(plan)


def test_a_directory_that_cannot_be_written_costs_only_the_cache(
    plan: Plan, engine: NumbaEngine, encoded: Constants, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert_same(constants_of(plan, engine, tmp_path / "file"), encoded)


def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / "thex"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_directory() == Path.home() / ".cache" / "thex"
