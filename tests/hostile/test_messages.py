"""Every corrupt message is refused for its own reason before anything is made of it; so is every truncation and flipped head."""

import time
from pathlib import Path

import pytest

from he_runtime.errors import WireError
from services.server.refusals import REASONS
from tests.hostile.generate_corpus import CORPUS, generate, resealed
from tests.hostile.messages import HEAD_BYTES, READERS, right_messages

pytestmark = pytest.mark.hostile
FILES = sorted(CORPUS.glob("*.bin"))


def test_the_committed_corpus_is_what_the_script_writes(tmp_path: Path) -> None:
    generate(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FILES
    }
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_corrupt_messages_are_refused_for_their_own_reason(path: Path) -> None:
    kind, _, reason, _ = path.name.split(".")
    started = time.perf_counter()
    with pytest.raises(WireError) as caught:
        READERS[kind](path.read_bytes())
    assert caught.value.reason == reason
    assert reason in REASONS
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("kind", READERS)
def test_right_messages_are_read_and_no_beginning_of_one_is(kind: str) -> None:
    right, read = right_messages()[kind], READERS[kind]
    read(right)
    for length in range(len(right)):
        with pytest.raises(WireError) as caught:
            read(right[:length])
        assert caught.value.reason == ("truncated" if length else "bad_magic"), length


@pytest.mark.parametrize("kind", READERS)
def test_no_head_with_a_flipped_bit_is_read(kind: str) -> None:
    right, read = right_messages()[kind], READERS[kind]
    scale_tail = range(24, 32)  # the last bits of a scale are within its tolerance
    for place in range(HEAD_BYTES):
        for bit in range(8):
            changed = resealed(right[:place] + bytes([right[place] ^ (1 << bit)]) + right[place + 1 :])
            try:
                read(changed)
            except WireError:
                continue
            assert place in scale_tail, (place, bit)
