"""`thex explain` and `thex train`."""

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
    from he_runtime.plan import plan_bundle

    plan = plan_bundle(Bundle.open(bundle_or_shipped(bundle)))
    report = report_of(plan)
    if as_json:
        print_json(report)
        return
    chosen = bucket if bucket is not None else (32 if 32 in plan.programs else min(plan.programs))
    if chosen not in plan.programs:
        raise ValueError(f"the bundle has no bucket {chosen}; its buckets are {sorted(plan.programs)}")
    console.print(render(report, chosen))


@one_line_errors
def train(
    data: Annotated[Path, typer.Option(help="Directory of one task in GLUE's layout, e.g. SST-2.")],
    out: Annotated[Path, typer.Option(help="Where the bundle is written.")],
    run: Annotated[Path, typer.Option(help="Where stages keep their state; a stopped run resumes from it.")] = Path(
        "runs/train"
    ),
    config: Annotated[
        Path | None, typer.Option(help="JSON with fields of TrainingConfig; unknown keys are refused.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune, replace the operations one after another, calibrate, and write a bundle."""
    from thex.config import TrainingConfig
    from thex.progress import bars
    from thex.training import train as run_training

    settings = TrainingConfig() if config is None else TrainingConfig.from_json(config.read_text())
    with bars() as progress:
        report = run_training(settings, data, run, out, progress)
    if as_json:
        print_json(report)
    else:
        console.print(report)
