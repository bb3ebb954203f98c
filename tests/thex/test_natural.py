"""Natural texts: where they come from, which are neighbours (against numpy), and which stages learn from them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from tests.thex.test_bundle import QUICK, write_task
from thex.data import Encoded
from thex.natural import LEAST_COMMON, NEIGHBOURS, THE_SAME, natural_examples, natural_texts
from thex.progress import silent
from thex.recipes import Stage
from thex.runs import RunConfig
from thex.stages import Lesson
from thex.tasks import Example
from thex.workflow import identity_of_run, run_recipe

WORDS = [f"w{number}" for number in range(60)]


def made_texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=int(random.integers(3, 12)))) for _ in range(count)]


def write_pairs(directory: Path) -> Path:
    directory.mkdir(parents=True)
    rows = [f"{i}\tthe film {i} was long\tfilm {i}\tentailment" for i in range(8)]
    for split in ("train", "dev"):
        (directory / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
    return directory


def test_texts_are_those_of_train_files_and_none_twice(tmp_path: Path) -> None:
    own = [Example("the film 3 was long", "one more text", 1.0), Example("two words", None, 0.0)]
    pairs, single = write_pairs(tmp_path / "RTE"), write_task(tmp_path / "SST-2")
    (single / "dev.tsv").write_text("sentence\tlabel\na sentence of dev\t1\n")
    dev = [Example("the film 5 was long", "film 5", 0.0)]
    found = natural_texts(pairs, own, dev)
    assert found[0] == ["the film 3 was long", "one more text"]
    assert not any("film 5 was" in text for source in found for text in source)
    assert {text for text in found[1] if "moving" in text} or {text for text in found[2] if "moving" in text}
    texts = [text for source in found for text in source]
    assert len(texts) == len(set(texts)) == 2 + 6 + 40
    assert not any("dev" in text for text in texts)
    alone = natural_texts(tmp_path / "elsewhere" / "SST-2", own, dev)
    assert alone == [found[0]]


def test_single_texts_come_from_every_source_alike() -> None:
    sources = [made_texts(500, 1), made_texts(20, 2), made_texts(100, 3)]
    train = [Example("a text", None, 0.0)]
    found = natural_examples(sources, train, 3000, seed=0)
    assert found == natural_examples(sources, train, 3000, seed=0)
    assert all(example.second is None for example in found)
    # Of 3000 draws a third, give or take four deviations of 26.
    for source in sources:
        assert sum(example.first in source for example in found) == pytest.approx(1000, abs=110)
    with pytest.raises(ValueError, match="2 texts of 3 words or more"):
        natural_examples([["a b c", "d e f"]], train, 4, seed=0)


@pytest.mark.parametrize("longer_first", [True, False])
def test_partners_are_neighbours_and_lie_as_the_tasks_pairs_do(longer_first: bool) -> None:
    texts = list(dict.fromkeys(made_texts(400, 4)))
    shape = ("x " * 4, "x " * 2) if longer_first else ("x " * 2, "x " * 4)
    found = natural_examples([texts], [Example(*shape, 0.0)], 500, seed=0)
    vectors = TfidfVectorizer(sublinear_tf=True, max_df=LEAST_COMMON).fit_transform(texts).toarray()
    cosines = vectors @ vectors.T
    place = {text: row for row, text in enumerate(texts)}
    ranks = []
    for example in found:
        first, second = place[example.first], place[example.second or ""]
        lengths = len(example.first.split()), len((example.second or "").split())
        assert lengths[0] >= lengths[1] if longer_first else lengths[0] <= lengths[1]
        assert first != second
        assert 0 < cosines[first, second] < THE_SAME + 1e-6
        # Which of the two was drawn is not known; float32 may order what is alike in float64 otherwise.
        ranks.append(min(int(np.sum(cosines[row] > cosines[first, second] + 1e-6)) for row in (first, second)))
    assert max(ranks) <= NEIGHBOURS
    assert np.median(ranks) < NEIGHBOURS / 4


def test_short_first_texts_are_joined_with_their_neighbours() -> None:
    texts = list(dict.fromkeys(made_texts(400, 4)))
    found = natural_examples([texts], [Example("x " * 30, "x x x", 0.0)], 200, seed=0)
    lengths = np.array([[len(example.first.split()), len((example.second or "").split())] for example in found])
    assert lengths[:, 0].mean() > 15
    assert lengths[:, 1].max() < 12
    # Each text has a word of its own: none is joined twice, nor with its partner.
    named = [f"{text} n{number}" for number, text in enumerate(texts)]
    found = natural_examples([named], [Example("x " * 30, "x x x", 0.0)], 200, seed=0)
    assert len(found) == 200
    for example in found:
        names = [word for word in f"{example.first} {example.second}".split() if word.startswith("n")]
        assert len(names) == len(set(names)) >= 2


def test_every_neighbour_is_drawn_and_texts_without_one_are_left_out() -> None:
    texts = ["red green blue", "red green lake", "red blue lake", "one two three"]
    found = natural_examples([texts], [Example("x x x", "x x x", 0.0)], 60, seed=0)
    assert len(found) == 60
    assert {frozenset((example.first, example.second)) for example in found} == {
        frozenset(two) for two in itertools.combinations(texts[:3], 2)
    }
    with pytest.raises(ValueError, match="no two of 3 texts share a word"):
        natural_examples([["a1 b1 c1", "a2 b2 c2", "a3 b3 c3"]], [Example("x", "x", 0.0)], 4, seed=0)


def test_only_stages_that_nobody_answers_see_them() -> None:
    def encoded(count: int) -> Encoded:
        return Encoded([[1, 2]] * count, [[0, 0]] * count, torch.zeros(count))

    lesson = Lesson(QUICK, encoded(5), None, None, 0, torch.device("cpu"), silent, encoded(3))
    seen = [
        len(lesson.texts_of(Stage(name="s", **weights)))
        for weights in ({"label": 1.0}, {"teacher": 0.5, "exact": 1.0}, {"exact": 1.0, "hidden": 1.0})
    ]
    assert seen == [5, 5, 8]


def test_stages_after_fine_tuning_are_known_by_the_texts_beside_the_task(tmp_path: Path) -> None:
    data = write_task(tmp_path / "SST-2")
    (data / "dev.tsv").write_text((data / "dev.tsv").read_text().replace("number", "no."))
    (whole,) = QUICK.stages
    answered = whole.model_copy(update={"name": "answered", "label": 1.0})
    recipe = QUICK.model_copy(update={"natural_up_to": 70, "stages": (answered, whole)})
    plain = QUICK.model_copy(update={"stages": recipe.stages})
    config = RunConfig(encoder="1x64", recipe=recipe, teacher=None)
    first = run_recipe(config, data, tmp_path / "run")
    alone = identity_of_run(config, data, tmp_path / "run")
    assert alone == first[-1]["identity"]
    write_pairs(tmp_path / "RTE")
    again = run_recipe(config, data, tmp_path / "run")
    assert again[:2] == first[:2]  # what labels answer has not seen them, and is kept
    assert again[2]["identity"] != first[2]["identity"]
    enough = config.model_copy(update={"recipe": plain.model_copy(update={"natural_up_to": 40})})
    without = config.model_copy(update={"recipe": plain})
    identities = {
        alone,
        identity_of_run(config, data, tmp_path / "run"),
        identity_of_run(without, data, tmp_path / "run"),
    }
    assert len(identities) == 3
    assert identity_of_run(enough, data, tmp_path / "run") == identity_of_run(without, data, tmp_path / "run")
