"""`thex`: the commands of researcher, operator and client."""

import typer

from services.cli import (
    approximations,
    bench,
    client,
    demo,
    embedding,
    evaluate,
    keys,
    model,
    operations,
    quality,
    report,
    server,
    tokens,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold texts and passphrases
    help="Encrypted transformer inference: THE-X.",
)
app.command("demo")(demo.demo)
app.command("classify")(client.classify)
app.command("embed")(embedding.embed)
app.command("search")(embedding.search)
app.command("index")(embedding.index)
app.command("keygen")(client.keygen)
app.command("serve")(server.serve)
app.command("certs")(server.certs)
app.command("explain")(model.explain)
app.command("train")(model.train)
app.command("health")(operations.health)
app.command("doctor")(operations.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(tokens.app, name="tokens")
app.command("distil")(model.distil)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("quality")(quality.quality)
app.command("approximations")(approximations.approximations)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
