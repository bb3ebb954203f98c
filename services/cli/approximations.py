"""`thex approximations`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.common import JsonOption, console, one_line_errors, print_json


@one_line_errors
def approximations(
    operation: Annotated[
        list[str] | None, typer.Option(help="softmax, activation, norm or pooler; may be repeated; all by default.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Where figures go: function, fit, error and histogram, each with its numbers.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Checkpoint whose values are fitted and weighed by, instead of made ones.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Directory of a task in GLUE's layout, for --encoder.")] = None,
    layer: Annotated[int, typer.Option(help="Layer of the encoder, from 0.", min=0)] = 0,
    head: Annotated[int, typer.Option(help="Attention head of that layer, from 0.", min=0)] = 0,
    texts: Annotated[int, typer.Option(help="How many texts are read.", min=1)] = 256,
    as_json: JsonOption = False,
) -> None:
    """Every replacement of softmax, GELU, LayerNorm and tanh: domain, degree, depth, error. Needs the extra train."""
    from approx.catalogue import catalogue
    from approx.registry import OPERATIONS

    if (encoder is None) != (data is None):
        raise ValueError("--encoder and --data go together: the encoder's values on the data's texts")
    values = None
    if encoder is not None and data is not None:
        from thex.layer_values import layer_values

        values = layer_values(encoder, data, layer, head, texts)
    entries = catalogue(operation or OPERATIONS, values)
    rows = [entry.as_row() for entry in entries]
    files: list[str] = []
    if plots is not None:
        from approx.plots import plot

        for entry in entries:
            files += [str(path) for path in plot(entry, plots, values)]
    if as_json:
        print_json({"values": "standard" if encoder is None else f"{encoder}, layer {layer}", "approximations": rows,
                    "files": files})  # fmt: skip
        return
    _show(rows)
    if files:
        console.print("\n".join(files))


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(pad_edge=False)
    narrow = ("largest\nerror", "usual\nerror", "client\nneeded")
    for title in ("operation", "name", "domain", "degree", "depth", *narrow, "encrypted"):
        table.add_column(title, no_wrap=title in ("name", "domain", "encrypted"))
    for row in rows:
        low, high = row["domain"]
        table.add_row(
            row["operation"], row["name"], f"[{low:.3g}, {high:.3g}]".replace("[", r"\["), _number(row["degree"]),
            _number(row["depth"]), f"{row['largest_error']:.3g}", f"{row['usual_error']:.3g}",
            f"{row['rounds']} round{'s' if row['rounds'] > 1 else ''}" if row["interactive"] else "no", row["encrypted"],
        )  # fmt: skip
    console.print(table)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
