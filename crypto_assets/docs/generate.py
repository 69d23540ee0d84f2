"""Write the pages that are generated: `python -m crypto_assets.docs.generate`.

With `--check` nothing is written, and pages that differ are named. What they say comes from the
code alone: no date, no path, nothing of the machine.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

COMMAND = "python -m crypto_assets.docs.generate"
FOLDER = Path(__file__).parent
_NOTE = f"<!-- Generated from the code: change it there, then run `{COMMAND}`. -->\n\n"
_PAGES = {
    "data_dictionary.md": "crypto_assets.docs.dictionary",
    "settings.md": "crypto_assets.docs.settings_table",
    "api.md": "crypto_assets.docs.api",
    "checks.md": "crypto_assets.docs.checks_list",
    "commands.md": "crypto_assets.docs.command_line",
}


def pages() -> dict[str, str]:
    """Return the generated pages by file name, as they should be."""
    found = {}
    for name, module in _PAGES.items():
        page: Callable[[], str] = import_module(module).page
        found[name] = _NOTE + page().strip() + "\n"
    return found


def stale(folder: Path = FOLDER) -> list[str]:
    """Return the names of generated pages that are not what the code says."""
    return [name for name, text in pages().items() if _text(folder / name) != text]


def write(folder: Path = FOLDER) -> None:
    """Write all generated pages."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a page is stale.")
def main(check: bool) -> None:
    """Write the pages of the documentation that follow from the code."""
    if not check:
        write()
    elif found := stale():
        click.echo(f"{', '.join(found)}: not what the code says; run '{COMMAND}'", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
