"""Options that commands share, and the settings that follow from them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

HOME = click.option(
    "--home", type=click.Path(path_type=Path), help="Folder of the warehouse (default: data)."
)
OVER_BUDGET = click.option(
    "--over-budget", is_flag=True, help="Start even if the month has too few credits left."
)
DAY = click.DateTime(["%Y-%m-%d"])
MOMENT = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
PORT = click.IntRange(0, 65535)


def settings_of(home: Path | None, over_budget: bool = False) -> "Settings":
    """Return the settings of a home; beyond the month's credits where that was asked for."""
    from crypto_assets.operations.home import refuse_file
    from crypto_assets.settings import load_settings

    if over_budget:
        # Where processes that are started for us find it, too.
        os.environ["CRYPTO_ASSETS_COINGECKO__MAY_EXCEED_CREDITS"] = "true"
    settings = load_settings(home)
    refuse_file(settings.home)
    return settings
