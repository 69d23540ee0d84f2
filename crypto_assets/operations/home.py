"""A home: the folder with the warehouse, the raw store, Dagster's history and its settings."""

import json
import os
import re
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from crypto_assets.operations.errors import OperationError
from crypto_assets.periods import DAY, midnight, wall_now
from crypto_assets.settings import FILE_NAME, Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg

DEMO_SEED = 7
STORAGE_NAME = "dagster_storage.yaml"
"""A file in the home that says where Dagster keeps its history, if not in files of the home."""

_STORAGE = re.compile(r"^storage:\n(?: .*\n)+", re.MULTILINE)
# Before this time of day the histories of the day that just ended are not out yet.
_ALL_READY_AFTER = timedelta(hours=1)


def prepare(settings: Settings) -> Path:
    """Create the home with its `dagster.yaml` (absolute paths) and return it."""
    home = settings.home
    template = files("crypto_assets.operations").joinpath("dagster.yaml").read_text("utf-8")
    try:
        home.mkdir(parents=True, exist_ok=True)
        if own := _own_storage(home):
            template = _STORAGE.sub(lambda _: own, template)
        for folder in ("dagster", "logs"):
            # A path may hold what YAML would take for syntax; JSON quotes for both.
            template = template.replace(
                f"base_dir: data/{folder}\n", f"base_dir: {json.dumps(str(home / folder))}\n"
            )
        target = home / "dagster.yaml"
        if not target.exists() or target.read_text("utf-8") != template:
            target.write_text(template, "utf-8")
    except OSError as error:
        raise _not_writable(home, error) from None
    return home


def refuse_file(home: Path) -> None:
    """Raise `OperationError` where the home is a file."""
    if home.is_file():
        raise _not_writable(home, NotADirectoryError())


def _own_storage(home: Path) -> str | None:
    """Return the home's own choice of Dagster's storage, as YAML. Raises `OperationError`."""
    file = home / STORAGE_NAME
    if not file.exists():
        return None
    try:
        chosen = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        chosen = None
    if not isinstance(chosen, dict) or list(chosen) != ["storage"]:
        raise OperationError(
            f"{file} must be YAML with Dagster's 'storage:' and nothing else: correct or remove it"
        )
    return yaml.safe_dump(chosen)


def refuse_impossible(home: Path) -> None:
    """Raise `OperationError` where a home can't be made, without making anything."""
    existing = next((p for p in (home, *home.parents) if p.exists()), Path("/"))
    if not existing.is_dir():
        raise _not_writable(home, NotADirectoryError(0, f"{existing} is a file, not a folder"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _not_writable(home, PermissionError(0, f"{existing} is not writable"))


def environment_of(home: Path) -> dict[str, str]:
    """Return what Dagster reads from the environment, here and in processes that are started."""
    # The events of a range come together then, and are stored at once (see `history`).
    return {"DAGSTER_HOME": str(home), "DAGSTER_EVENT_BATCH_SIZE": "1000"}


def open_instance(settings: Settings) -> "dg.DagsterInstance":
    """Return Dagster's persistent instance of the home."""
    import dagster as dg

    home = prepare(settings)
    os.environ |= environment_of(home)
    return dg.DagsterInstance.from_config(str(home))


def found_history(settings: Settings) -> None:
    """Create Dagster's history where there is none: two processes that do so at once collide."""
    if (settings.home / "dagster" / "history").exists():
        return
    open_instance(settings).dispose()


def demo_settings(home: Path, coins: int | None, days: int | None) -> Settings:
    """Return the settings of a demo home; a new one is created for `coins` and `days`.

    Raises `OperationError` where the home is not a demo's, or was made for something else.
    """
    file = home / FILE_NAME
    if file.exists():
        settings = load_settings(home)
        if not settings.is_sandbox or settings.sandbox is None or settings.sandbox.clock is None:
            raise OperationError(f"{home} is not a demo home: choose another one with --home")
        made_days = (settings.sandbox.clock.date() - settings.history.start).days
        made_coins = settings.universe.tracked
        if coins not in (None, made_coins) or days not in (None, made_days):
            raise OperationError(
                f"{home} was made for {made_coins} coins and {made_days} days: ask for the same, "
                "or choose another folder with --home"
            )
        return settings
    if (home / "warehouse.duckdb").exists():
        raise OperationError(f"{home} holds live data: choose another folder with --home")
    _write_demo_file(file, coins or 100, days or 180)
    return load_settings(home)


def frozen_clock(now: datetime) -> datetime:
    """Return where a demo's clock stands: now, or the evening before where today is too young."""
    now = now.replace(second=0, microsecond=0)
    if now - midnight(now.date()) < _ALL_READY_AFTER:
        return midnight(now.date()) - timedelta(hours=1)
    return now


def _write_demo_file(file: Path, coins: int, days: int) -> None:
    clock = frozen_clock(wall_now())
    tree = {
        "sandbox": {"seed": DEMO_SEED, "clock": clock.isoformat()},
        "universe": {"tracked": coins},
        "history": {"start": (clock.date() - days * DAY).isoformat()},
        # The clock stands still, so there is nothing for schedules to fetch.
        "schedules": {"enabled": False},
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            "# Written by `crypto-assets demo`: invented data from the sandbox.\n"
            + yaml.safe_dump(tree, sort_keys=False),
            encoding="utf-8",
        )
    except OSError as error:
        raise _not_writable(file.parent, error) from None


def _not_writable(home: Path, error: OSError) -> OperationError:
    why = "it is a file, not a folder" if home.is_file() else error.strerror
    return OperationError(
        f"can't write to the home {home} ({why}): make it a writable folder or choose another one "
        "with --home"
    )
