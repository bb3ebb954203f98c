"""Recipes as data: read from JSON, less a stage, refused where they contradict themselves; and ratios along a stage."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from thex.config import Replacements
from thex.encoder import REPLACED, Ratios
from thex.recipes import (
    NON_INTERACTIVE,
    RECIPES,
    SENTENCE_ENCODER,
    THE_X,
    THE_X_CODE,
    Recipe,
    Stage,
    find_recipe,
    ratios,
)
from thex.stages import bounded


def test_a_recipe_is_data(tmp_path: Path) -> None:
    for recipe in RECIPES.values():
        (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
        assert find_recipe(str(tmp_path / "recipe.json")) == recipe
        # To the letter: a stage is known by what its fields print as, and is run again where 5.0 was 5.
        assert repr(find_recipe(str(tmp_path / "recipe.json")).model_dump()) == repr(recipe.model_dump())
    with pytest.raises(ValueError, match=r"unknown recipe 'the-y': expected non-interactive, the-x, the-x-code, exact"):
        find_recipe("the-y")
    with pytest.raises(ValidationError, match="unknown softmax 'cubed'"):
        Replacements(softmax="cubed")
    with pytest.raises(ValidationError, match="different names"):
        Recipe.model_validate({**THE_X.model_dump(), "stages": [THE_X.stages[0], THE_X.stages[0]]})
    for name, reason in (("bundle", "no stage can be called 'bundle'"), (THE_X.finetune.name, "different names")):
        with pytest.raises(ValidationError, match=reason):
            Recipe.model_validate({**THE_X.model_dump(), "stages": [{"name": name}]})
    with pytest.raises(ValidationError, match="at or below positions"):
        Recipe.model_validate({**THE_X.model_dump(), "buckets": (64, 256)})


def test_every_recipe_but_exact_ends_with_everything_replaced() -> None:
    for recipe in (NON_INTERACTIVE, THE_X, THE_X_CODE, SENTENCE_ENCODER):
        after = recipe.replaced_after(len(recipe.stages))
        assert ratios(after, Stage(name="end"), 1.0) == REPLACED


def test_the_two_readings_of_the_x_differ_in_softmax_alone() -> None:
    assert (THE_X.replacements.softmax, THE_X_CODE.replacements.softmax) == ("thex_formula", "thex_code")
    as_code = THE_X.replacements.model_copy(update={"softmax": "thex_code"})
    assert THE_X.model_copy(update={"name": "the-x-code", "replacements": as_code}) == THE_X_CODE


def test_a_skipped_stage_leaves_its_operation_exact() -> None:
    fewer = NON_INTERACTIVE.without(("softmax",))
    assert fewer.name == "non-interactive-without-softmax"
    assert ratios(fewer.replaced_after(len(fewer.stages)), Stage(name="end"), 1.0) == Ratios(0, 1, 1, 1)
    with pytest.raises(ValueError, match=r"no stage 'tanh': its stages are activation, softmax, norm, distil"):
        NON_INTERACTIVE.without(("tanh",))


def test_operations_move_over_the_ramp_and_stay() -> None:
    stage = Stage(name="two", replaces=("softmax",), ramp=0.4)
    assert [ratios(("activation",), stage, fraction).softmax for fraction in (0, 0.1, 0.2, 0.4, 1)] == pytest.approx(
        [0, 0.25, 0.5, 1, 1]
    )
    assert ratios(("activation",), stage, 0.1).activation == 1
    assert ratios((), Stage(name="at-once", replaces=("norm",), ramp=0), 0).norm == 1


def test_a_penalty_that_explodes_still_pulls() -> None:
    for size, pull in ((2.0, 1.0), (50.0, 1.0), (5e6, 1e-5)):
        penalty = torch.tensor(size, requires_grad=True)
        value = bounded(penalty, 50.0)
        value.backward()
        assert penalty.grad is not None
        assert float(penalty.grad) == pytest.approx(pull)
        assert float(value.detach()) <= min(size, 50 * (1 + math.log(max(1.0, size / 50)))) * (1 + 1e-6)
    assert bounded(torch.tensor(math.inf), 50.0) == 0
    assert bounded(torch.tensor(math.nan), 50.0) == 0
