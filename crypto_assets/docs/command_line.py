"""The command line as `--help` tells it."""

import click

from crypto_assets.cli import cli
from crypto_assets.docs.markdown import fenced, link

_INTRODUCTION = """
# Command line

What `crypto-assets COMMAND --help` says. Without `--home` the settings in force decide which home
is meant. What goes wrong ends in one sentence on standard error and exit code 1; wrong usage ends
with 2.
"""
_WIDTH = 88


def page() -> str:
    """Return the page."""
    commands = sorted(cli.commands.items())
    contents = "\n".join(f"- {link(name)}: {_first_sentence(one)}" for name, one in commands)
    sections = (f"## {name}\n\n{fenced(_help(name, one), 'text')}" for name, one in commands)
    return "\n\n".join([_INTRODUCTION.strip(), contents, *sections])


def _first_sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _help(name: str, command: click.Command) -> str:
    # The width is given: a terminal's own would make the page differ from machine to machine.
    parent = click.Context(cli, info_name="crypto-assets", terminal_width=_WIDTH)
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)
