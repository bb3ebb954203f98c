"""Calibration fits every replacement there is, to what the exact model computes."""

import pytest
import torch

from approx.registry import names
from thex.calibration import LENGTH_MARGIN, calibrate, compare_with_ranges, largest_by_text, measure_ranges
from thex.config import EncoderConfig, Replacements
from thex.data import Encoded
from thex.encoder import EXACT, REPLACED, Encoder
from thex.recorder import Recorder

SHAPE = EncoderConfig(vocabulary=40, layers=2, hidden=16, heads=2, intermediate=24, positions=24)
EXACT_ELSEWHERE = {"softmax": "exact", "activation": "exact", "norm": "exact", "pooler": "exact"}


def texts() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 20, (30,), generator=generator).tolist()
    ids = [torch.randint(0, 40, (length,), generator=generator).tolist() for length in lengths]
    return Encoded(ids, [[0] * len(each) for each in ids], torch.zeros(30))


def encoder(operation: str, name: str) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(SHAPE, Replacements(**{**EXACT_ELSEWHERE, operation: name}))
    with torch.no_grad():
        for layer in model.layers:
            layer.query.weight.mul_(4)
            layer.up.weight.mul_(3)
    return model


def error(model: Encoder, operation: str) -> float:
    """Mean square distance of the replaced from the exact operation on what the exact model computes."""
    data, total = texts(), 0.0
    with torch.no_grad():
        for ids in data.ids:
            recorder, mask = Recorder(), torch.ones(1, len(ids))
            model(torch.tensor([ids]), mask, torch.zeros(1, len(ids), dtype=torch.int64), EXACT, recorder)
            if operation == "pooler":
                inputs = model.pooler(recorder["output", 1][:, 0])
                pairs = [(model.pooler_function, (inputs,))]
            else:
                pairs = []
                for number, layer in enumerate(model.layers):
                    pairs += {
                        "softmax": [(layer.softmax, (recorder["score", number], mask))],
                        "activation": [(layer.activation, (recorder["preactivation", number],))],
                        "norm": [
                            (layer.attention_norm, (recorder["residual", number],)),
                            (layer.output_norm, (recorder["output_residual", number],)),
                        ],
                    }[operation]
            total += sum(float(((each.replaced(*given) - each.exact(*given)) ** 2).mean()) for each, given in pairs)
    return total


NOT_FITTED_HERE = {("softmax", "thex_formula"), ("softmax", "thex_code"), ("activation", "relu"), ("pooler", "linear")}


@pytest.mark.parametrize(("operation", "name"), [each for each in names() if each[1] != "exact"])
def test_calibration_brings_every_replacement_nearer_to_exact(operation: str, name: str) -> None:
    model = encoder(operation, name)
    before, start = error(model, operation), {key: value.clone() for key, value in model.state_dict().items()}
    calibrate(model, texts(), 0)
    model.eval()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, start[key])}
    assert all(".replaced." in key for key in changed)
    if (operation, name) in NOT_FITTED_HERE:
        assert not changed
        return
    assert changed
    if name in {"exp_newton", "exp_chebyshev"}:
        # What is fitted is where the reciprocal holds, not the error of the average row.
        intervals = [layer.softmax.replaced.interval for layer in model.layers]
        assert all(torch.isfinite(each).all() and (each[:, 0] < each[:, 1]).all() for each in intervals)
        return
    assert error(model, operation) < before


def test_ranges_hold_sentences_and_no_text_that_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Encoder(SHAPE, Replacements())
    calibrate(model, texts(), 0)
    sentences = texts().subset(range(3))
    own = largest_by_text(model, sentences, REPLACED)

    def ranges(held: float) -> dict[str, float]:
        monkeypatch.setattr("thex.calibration.HELD", held)
        found = measure_ranges(model, sentences, 3, 2.0, 0)
        return {name: found[name] for name in ("embedding", "logits")} | found["layers"][1]

    none, some, everything = ranges(0.0), ranges(1.0), ranges(1e30)
    assert none["logits"] == some["logits"] == pytest.approx(2 * float(own["logits", -1].max()), rel=1e-3)
    assert none["output"] == pytest.approx(2 * float(own["output", 1].max()), rel=1e-3)
    for point, value in none.items():
        assert value <= some[point] <= everything[point]
    assert everything["logits"] > none["logits"]  # odd texts go further than these sentences
    assert none != some  # and some of them are held, whatever happens inside


def test_a_vectors_length_is_bounded_by_the_exact_encoders_whatever_the_replaced_one_does() -> None:
    torch.manual_seed(0)
    shape = SHAPE.model_copy(update={"pooling": "mean", "head": False, "labels": SHAPE.hidden})
    exact, model = (Encoder(shape, Replacements()).eval() for _ in range(2))
    calibrate(model, texts(), 0)
    assert "length" not in measure_ranges(model, texts(), 30, 2.0, 0)
    before = measure_ranges(model, texts(), 30, 2.0, 0, exact)
    own = largest_by_text(exact, texts(), EXACT)["length", -1]
    assert before["length"] >= LENGTH_MARGIN * float(own.max()) * 0.999  # hostile inputs count, too
    with torch.no_grad():
        for parameter in model.layers[-1].output_norm.replaced.parameters():
            parameter.mul_(100)
    after = measure_ranges(model, texts(), 30, 2.0, 0, exact)
    assert after["length"] == before["length"]
    assert after["logits"] > 10 * before["logits"]
    compared = compare_with_ranges(model, texts(), after)
    assert (compared["outside"], compared["used"]["length"] > 1, compared["used"]["logits"] < 1) == (30, True, True)
