"""`thex evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import JsonOption, console, error_console, lines_of, one_line_errors, print_json


@one_line_errors
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory.")],
    data: Annotated[Path | None, typer.Option(help="Directory of the bundle's task in GLUE's layout.")] = None,
    mode: Annotated[
        str, typer.Option(help="plain, simulate, or encrypted through a real client and server.")
    ] = "plain",
    limit: Annotated[
        int | None, typer.Option(help="A fixed random sample of so many examples; all by default.", min=1)
    ] = None,
    answers: Annotated[Path, typer.Option(help="Where finished examples are kept; a stopped run resumes.")] = Path(
        "runs/evaluate"
    ),
    hostile: Annotated[
        bool,
        typer.Option(
            "--hostile", help="Ask inputs that nobody writes instead of a task's: none may be answered wrongly."
        ),
    ] = False,
    queries: Annotated[
        Path | None, typer.Option(help="Of a search bundle: a query for each line of this file, instead of a task.")
    ] = None,
    top: Annotated[int, typer.Option(help="With --queries: how many passages have to be ranked alike.", min=1)] = 10,
    threads: Annotated[int, typer.Option(help="Threads of the evaluator.", min=1)] = 2,
    as_json: JsonOption = False,
) -> None:
    """The task's metric of a bundle, and its agreement with the plain replaced model."""
    from services.answering import MODES
    from services.evaluation import evaluate as run

    chosen = next((known for known in MODES if known == mode), None)
    if chosen is None:
        raise ValueError(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")

    def show(done: int, total: int) -> None:
        if not as_json:
            error_console.print(f"{done}/{total}", end="\r")

    if sum((hostile, queries is not None, data is not None)) > 1:
        raise ValueError("--data, --queries and --hostile say what to ask, each something else: give one of them")
    if hostile:
        from services.hostile_evaluation import evaluate_hostile

        if limit is not None:
            raise ValueError("--hostile asks all of its inputs: leave out --limit")
        report = evaluate_hostile(bundle, chosen, answers=answers, threads=threads, progress=show)
    elif queries is not None:
        from services.search_evaluation import evaluate_search

        texts = lines_of(queries)[:limit]
        report = evaluate_search(bundle, texts, chosen, top=top, answers=answers, threads=threads, progress=show)
    elif data is None:
        raise ValueError("nothing to ask: give a task's directory with --data, queries with --queries, or --hostile")
    else:
        report = run(bundle, data, chosen, limit=limit, answers=answers, threads=threads, progress=show)
    if as_json:
        print_json(report)
    else:
        console.print(report)
