"""A stage may stop between the weights before it and those after it."""

import torch

from tests.thex.test_calibration import SHAPE, texts
from thex.config import Replacements
from thex.encoder import Encoder
from thex.progress import silent
from thex.recipes import NON_INTERACTIVE, Stage
from thex.stages import Lesson, learn


def learned(share: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    exact, model = (Encoder(SHAPE, Replacements()) for _ in range(2))
    model.load_state_dict(exact.state_dict())
    stage = Stage(name="distil", texts=60, exact=1.0, hidden=1.0, share=share)
    recipe = NON_INTERACTIVE.model_copy(update={"batch": 10})
    learn(
        model, stage, ("activation",), Lesson(recipe, texts(), None, exact.eval(), 0, torch.device("cpu"), silent, None)
    )
    return {"start": exact.state_dict()["word.weight"], "end": model.state_dict()["word.weight"]}


def test_a_share_of_a_stage_lies_on_the_line_between_its_ends() -> None:
    whole, part = learned(1.0), learned(0.25)
    torch.testing.assert_close(part["start"], whole["start"], rtol=0, atol=0)
    assert float((whole["end"] - whole["start"]).abs().max()) > 1e-4
    torch.testing.assert_close(part["end"], whole["start"].lerp(whole["end"], 0.25), rtol=0, atol=1e-7)
