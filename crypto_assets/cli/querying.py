"""`sql`: what is asked of the publication, and where the answer goes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from crypto_assets.cli.options import HOME, settings_of
from crypto_assets.cli.printing import as_text, new_console, print_rows

if TYPE_CHECKING:
    from crypto_assets.operations.querying import Answer, Reader


@click.command()
@click.argument("query", required=False)
@click.option(
    "--file", type=click.Path(path_type=Path), help="Take the query from a file; - is the input."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Form of the answer (default: table, or what the name of --output ends with).",
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write the answer to.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--with",
    "beside",
    metavar="NAME=FILE",
    multiple=True,
    help="Read a CSV, JSON or Parquet file of yours as the table NAME.",
)
@HOME
def sql(
    query: str | None,
    file: Path | None,
    form: str | None,
    output: Path | None,
    force: bool,
    beside: tuple[str, ...],
    home: Path | None,
) -> None:
    """Ask the newest publication, read-only; without a query, open a prompt.

    Only queries run, and they read no file but the publication and those of --with. QUERY may be
    - for the input.

    \b
    Example: crypto-assets sql "FROM latest_market LIMIT 10"
             crypto-assets sql "FROM returns" --output returns.parquet
    """
    from crypto_assets.operations import querying

    form = _export_form(form, output)
    reader = querying.Reader(settings_of(home).home, _named_files(beside))
    with reader:
        text = _query_text(query, file)
        if text is None and form == "table":
            _prompt(reader)
        elif text is None:
            raise click.UsageError("An export needs a query.")
        elif form == "table":
            for answer in reader.answers(text):
                _print_answer(answer)
        elif output is None:
            querying.print_export(reader, text, cast("querying.Format", form), sys.stdout)
        else:
            rows = querying.export(
                reader, text, cast("querying.Format", form), output, replace=force
            )
            told = "1 row is" if rows == 1 else f"{rows:,} rows are"
            click.echo(f"{told} in {output}.", err=True)


def _export_form(form: str | None, output: Path | None) -> str:
    if output is None:
        if form == "parquet":
            raise click.UsageError("Parquet is no text: name a file with --output.")
        return form or "table"
    form = form or output.suffix.lower().removeprefix(".")
    if form not in ("csv", "json", "parquet"):
        raise click.UsageError("--output needs --format csv, json or parquet.")
    return form


def _named_files(beside: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for text in beside:
        name, _, file = text.partition("=")
        if not name or not file:
            raise click.UsageError(f"--with {text}: say it as NAME=FILE.")
        found[name] = Path(file)
    return found


def _query_text(query: str | None, file: Path | None) -> str | None:
    """Return what is asked; nothing where a person is to be prompted."""
    if query and file:
        raise click.UsageError("Give a query or --file, not both.")
    if file and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"can't read {file} ({error.strerror})") from None
        except UnicodeDecodeError:
            raise click.ClickException(f"can't read {file}: it is no text in UTF-8") from None
    if query == "-" or file or (query is None and not sys.stdin.isatty()):
        return sys.stdin.read()
    return query


def _prompt(reader: "Reader") -> None:
    from crypto_assets.operations.shell import Shell

    def tell(text: str) -> None:
        click.echo(text, err=True)

    Shell(reader, _print_answer, tell, Path.home() / ".crypto_assets_history").run()


def _print_answer(answer: "Answer") -> None:
    console = new_console()
    widths = [
        max(len(line) for cell in column for line in as_text(cell).splitlines() or [""])
        for column in zip(answer.names, *answer.rows, strict=True)
    ]
    shown = len(widths)
    if console.is_terminal:
        # Three more a column are its margins; a table torn over many lines helps nobody.
        while shown > 1 and sum(min(width, 40) + 3 for width in widths[:shown]) > console.width:
            shown -= 1
    else:
        console = new_console(width=max(200, sum(widths) + 3 * len(widths)))
    print_rows(console, answer.names[:shown], [row[:shown] for row in answer.rows])
    if shown < len(widths):
        click.echo(
            f"{shown} of {len(widths)} columns fit: select some, or --format csv gives all.",
            err=True,
        )
    if answer.is_cut:
        click.echo(
            f"Only the first {len(answer.rows)} rows are shown: --format csv gives all.", err=True
        )
