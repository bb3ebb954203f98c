"""Every replacement's facts and measured errors against other evaluations, and against what bundles really hold."""

import json
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from approx.calibration_values import CalibrationValues, standard_values
from approx.catalogue import Entry, catalogue, fitted
from approx.measuring import curve, measure
from approx.plots import plot
from approx.registry import OPERATIONS, build, find, names
from approx.replacement import Shape
from services.cli.common import one_line_errors
from services.cli.main import app
from thex.bundle import exportable
from thex.config import EncoderConfig, Replacements
from thex.encoder import Encoder
from thex.tasks import find_task


@pytest.fixture(scope="module")
def entries() -> dict[tuple[str, str], Entry]:
    return {(entry.operation, entry.name): entry for entry in catalogue()}


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    shape = Shape(8, 2, 8, 1e-12)
    with pytest.raises(
        ValueError, match=r"unknown operation 'gelu': expected one of softmax, activation, norm, pooler"
    ):
        build("gelu", "exact", shape)
    with pytest.raises(ValueError, match=r"unknown pooler 'cube': expected one of exact, linear, cubic, quintic"):
        find("pooler", "cube")
    with pytest.raises(ValueError, match="unknown operation 'gelu'"):
        catalogue(["gelu"])


def test_standard_values_fill_the_domains_that_are_stated() -> None:
    values = standard_values()
    for operation, name in names():
        assert values.domain(operation) == pytest.approx(find(operation, name).facts.domain, rel=1e-3)
    assert values.deviation == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(("operation", "name"), names())
def test_a_replacement_is_a_polynomial_of_its_degree_and_no_less(operation: str, name: str) -> None:
    facts = find(operation, name).facts
    if facts.degree is None or name.startswith("exp"):
        return
    module = fitted(operation, name, standard_values())
    points = torch.linspace(-1, 1, facts.degree + 3, dtype=torch.float64)
    with torch.no_grad():
        if operation == "softmax":
            # One score moves, and its own weight is watched: the others keep theirs.
            scores = torch.zeros(1, 1, len(points), 5, dtype=torch.float64)
            scores[0, 0, :, 0] = points
            values = module(scores, torch.ones(1, 5, dtype=torch.float64))[0, 0, :, 0].numpy()
        elif operation == "norm":
            rows = points[:, None] * torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            values = module(rows)[:, 0].numpy()
        else:
            values = module(points[:, None])[:, 0].numpy()
    # Finite differences: the (d+1)st of a polynomial of degree d is zero, its d-th is not.
    scale = np.abs(values).max() * 2.0 ** (facts.degree + 1)
    assert np.abs(np.diff(values, facts.degree + 1)).max() < 1e-12 * scale
    assert np.abs(np.diff(values, facts.degree)).max() > 1e-6 * scale
    # No evaluation gets to degree d, times a mask where there is one, in fewer products than log2.
    masked = operation == "softmax"
    assert facts.depth is not None
    assert 2**facts.depth >= facts.degree + masked


def test_the_degree_of_the_exponential_is_that_of_its_numerator() -> None:
    for name in ("exp_chebyshev", "exp_newton"):
        module = fitted("softmax", name, standard_values())
        points = torch.linspace(-1, 1, 11, dtype=torch.float64)
        values = module.exponential(points).numpy()
        assert np.abs(np.diff(values, 9)).max() < 1e-12
        assert np.abs(np.diff(values, 8)).max() > 1e-10


@pytest.mark.parametrize(("operation", "name"), names())
def test_encrypted_says_what_bundles_hold(operation: str, name: str) -> None:
    chosen = {"softmax": "quadratic", "activation": "quadratic", "norm": "affine_centred", "pooler": "linear"}
    chosen[operation] = name
    shape = EncoderConfig(vocabulary=10, layers=1, hidden=8, heads=2, intermediate=8, positions=8)
    refusal = exportable(Encoder(shape, Replacements(**chosen)), find_task("SST-2"))
    facts = find(operation, name).facts
    assert (refusal is None) == (facts.encrypted == "one round"), refusal
    assert facts.interactive == (facts.encrypted == "needs client")
    assert (facts.depth is None) == (name == "exact")


@pytest.mark.parametrize("name", list(OPERATIONS["activation"]) + list(OPERATIONS["pooler"]))
def test_errors_of_one_variable_are_those_that_mpmath_finds(name: str, entries: dict[tuple[str, str], Entry]) -> None:
    for operation in ("activation", "pooler"):
        if name not in OPERATIONS[operation]:
            continue
        entry, values = entries[operation, name], standard_values()
        module = fitted(operation, name, values)
        x = np.linspace(*entry.errors.domain, 601)
        replaced = module(torch.from_numpy(x)[:, None]).detach().numpy()[:, 0]
        reference = (lambda t: t * mpmath.ncdf(t)) if operation == "activation" else mpmath.tanh
        errors = np.abs([float(reference(mpmath.mpf(t))) - value for t, value in zip(x, replaced, strict=True)])
        assert errors.max() <= entry.errors.largest * (1 + 1e-9) + 1e-12
        # A coarser grid, ends included: 600 steps miss an extremum by at most h²/8 of the curvature.
        assert errors.max() == pytest.approx(entry.errors.largest, rel=2e-3, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in OPERATIONS["softmax"] if name != "exact"])
def test_no_row_has_a_larger_error_than_the_one_reported(name: str, entries: dict[tuple[str, str], Entry]) -> None:
    entry, values = entries["softmax", name], standard_values()
    module = fitted("softmax", name, values)
    low, high = entry.errors.domain
    tokens = values.scores.shape[1]
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(1, tokens, dtype=torch.float64)
    worst = 0.0
    # Rows of every kind: spread evenly, crowded to either end, nearly constant.
    for power in (0.05, 0.3, 1.0, 3.0, 20.0):
        scores = low + (high - low) * torch.rand(1, 1, 4000, tokens, generator=generator, dtype=torch.float64) ** power
        scores[..., 0] = low + (high - low) * torch.rand(1, 1, 4000, generator=generator, dtype=torch.float64)
        error = (module(scores, mask) - torch.softmax(scores, -1)).abs().amax(-1)
        if name.startswith("exp"):
            means = module.means(scores, mask)[..., 0]
            start, end = module.interval[0].tolist()
            error = error[(means >= start) & (means <= end)]
        worst = max(worst, float(error.detach().max()) if error.numel() else 0.0)
    # The rows searched have scores on a grid; between its points T's kinks and the peaks may rise by a little more.
    assert worst <= 1.03 * entry.errors.largest
    assert worst >= 0.2 * entry.errors.largest


def test_errors_of_norms_are_known_in_closed_form(entries: dict[tuple[str, str], Entry]) -> None:
    values = standard_values()
    low, high = values.domain("norm")
    for name in ("affine_centred", "constant_variance"):
        assert entries["norm", name].errors.largest == pytest.approx(max(high - 1, 1 - low), rel=1e-9)
        usual = np.sqrt(((values.deviations - 1) ** 2).mean())
        assert entries["norm", name].errors.usual == pytest.approx(usual, rel=1e-9)
    # Without the mean's subtraction the mean adds to it, at a right angle.
    wanted = np.hypot(high - 1, values.mean_bound + abs(values.residuals.mean()))
    assert entries["norm", "affine"].errors.largest == pytest.approx(wanted, rel=1e-3)


def test_the_table_orders_as_theory_does(entries: dict[tuple[str, str], Entry]) -> None:
    def largest(operation: str, name: str) -> float:
        return entries[operation, name].errors.largest

    def usual(operation: str, name: str) -> float:
        return entries[operation, name].errors.usual

    assert all(largest(operation, "exact") == usual(operation, "exact") == 0 for operation in OPERATIONS)
    assert largest("activation", "relu") == pytest.approx(0.16997, abs=1e-4)  # max of t·Φ(-t)
    assert largest("activation", "minimax") < largest("activation", "least_squares")
    assert usual("activation", "least_squares") < usual("activation", "minimax")
    assert usual("activation", "quartic") < usual("activation", "quadratic") < usual("pooler", "linear")
    assert usual("pooler", "quintic") < usual("pooler", "cubic") < usual("pooler", "linear")
    assert usual("softmax", "quadratic") < usual("softmax", "linear")
    assert usual("softmax", "thex_code") < usual("softmax", "thex_formula")


def test_values_of_a_model_move_the_domain_and_the_fits() -> None:
    values = standard_values()
    narrow = replace(values, preactivations=values.preactivations / 3)
    wide, close = (
        next(entry for entry in catalogue(["activation"], chosen) if entry.name == "quadratic")
        for chosen in (values, narrow)
    )
    assert close.errors.domain == pytest.approx((-2, 2))
    assert close.errors.largest < wide.errors.largest / 4
    for broken, message in (
        ({"scores": np.zeros(3)}, "calibration scores have 2 dimensions"),
        ({"pooled": np.array([])}, "not empty"),
        ({"pooled": np.array([np.nan])}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(values, **broken)
    module = fitted("pooler", "cubic", values)
    for ask in (measure, curve):
        with pytest.raises(ValueError, match="unknown operation 'sin'"):
            ask("sin", module, module, values)


@pytest.mark.parametrize(("operation", "name"), [("activation", "relu"), ("softmax", "quadratic"), ("norm", "affine")])
def test_a_figure_comes_with_its_numbers(
    operation: str, name: str, entries: dict[tuple[str, str], Entry], tmp_path: Path
) -> None:
    entry, values = entries[operation, name], standard_values()
    image, numbers = plot(entry, tmp_path, values)
    assert image.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    document = json.loads(numbers.read_text())
    assert document["largest_error"] == entry.errors.largest
    of = {"activation": values.preactivations, "softmax": values.scores, "norm": values.deviations}[operation]
    assert sum(document["counts"]) == of.size
    x, exact, replaced = (np.array(document[key]) for key in ("x", "exact", "replaced"))
    assert (replaced - exact).tolist() == document["error"]
    if operation == "activation":
        assert replaced == pytest.approx(np.maximum(x, 0))
        assert np.abs(document["error"]).max() == pytest.approx(entry.errors.largest, rel=1e-2)
    elif operation == "norm":
        assert exact == pytest.approx(np.ones_like(x))
        assert replaced == pytest.approx(np.hypot(x, values.residuals.mean()), rel=1e-2)
    else:
        others = np.exp(values.scores[0, 1:]).sum()
        assert exact == pytest.approx(len(values.scores[0]) * np.exp(x) / (np.exp(x) + others))


def test_the_command_prints_the_catalogue_and_writes_its_figures(tmp_path: Path) -> None:
    arguments = ["approximations", "--operation", "pooler", "--operation", "norm"]
    found = CliRunner().invoke(app, [*arguments, "--plots", str(tmp_path / "figures"), "--json"])
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    assert printed["values"] == "standard"
    assert [row["name"] for row in printed["approximations"] if row["operation"] == "pooler"] == list(
        OPERATIONS["pooler"]
    )
    assert {row["operation"] for row in printed["approximations"]} == {"pooler", "norm"}
    assert sorted(printed["files"]) == sorted(str(path) for path in (tmp_path / "figures").iterdir())
    assert len(printed["files"]) == 2 * len(printed["approximations"])
    table = CliRunner().invoke(app, arguments)
    assert all(word in table.stdout for word in ("quintic", "in the clear only", "constant_variance"))
    wrong = CliRunner().invoke(app, ["approximations", "--operation", "gelu"])
    assert wrong.exit_code == 1
    assert "expected one of softmax, activation, norm, pooler" in wrong.output
    alone = CliRunner().invoke(app, ["approximations", "--encoder", "x"])
    assert alone.exit_code == 1
    assert "--encoder and --data go together" in alone.output


def test_the_documents_tables_are_the_catalogues(entries: dict[tuple[str, str], Entry]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "approximations.md").read_text(encoding="utf-8")
    sections = dict(zip(("softmax", "activation", "norm", "pooler"), text.split("\n## ")[1:5], strict=True))
    for operation, section in sections.items():
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")
        ]
        assert [row[0] for row in rows[1:]] == list(OPERATIONS[operation])
        for name, derivation, degree, depth, encrypted, largest, usual, *_ in rows[1:]:
            entry = entries[operation, name]
            facts = entry.facts
            assert derivation == facts.derivation
            assert (degree, depth) == tuple(
                "" if value is None else str(value) for value in (facts.degree, facts.depth)
            )
            assert encrypted.startswith(facts.encrypted)
            # Three digits are printed; T is trained, and trains a little differently on another processor.
            tolerance = 0.3 if name.startswith("thex") else 1e-2
            assert (float(largest), float(usual)) == pytest.approx(
                (entry.errors.largest, entry.errors.usual), rel=tolerance, abs=1e-12
            )


def test_calibration_values_are_what_reaches_each_operation() -> None:
    values = standard_values()
    assert isinstance(values, CalibrationValues)
    assert values.mean_bound == pytest.approx(0.1, rel=1e-3)
    assert np.abs(values.deviations - values.residuals.std(axis=1)).max() < 1e-3


@pytest.mark.parametrize(("missing", "extra"), [("scipy", "thex[train]"), ("tenseal", "thex[client,server]")])
def test_a_missing_package_is_named_with_its_extra(
    missing: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    with pytest.raises(typer.Exit):
        one_line_errors(command)()
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{missing} is missing" in printed
    assert extra in printed
