"""What Dagster takes before anything of ours happens, and what our platform adds to that."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pandas as pd
import yaml

from crypto_assets.operations.history import History
from crypto_assets.operations.home import environment_of
from crypto_assets_tests.benchmarks import histories, homes
from crypto_assets_tests.benchmarks.contenders import QUIET
from crypto_assets_tests.benchmarks.homes import CLOCK, command
from crypto_assets_tests.benchmarks.measuring import Figures, in_turns, measured, python
from crypto_assets_tests.benchmarks.results import Result
from crypto_assets_tests.benchmarks.suite import Setup


def floor(setup: Setup) -> Result:
    """Run an asset that does nothing for 90 days, stage by stage, and ours on days all final."""
    days, coins = 3 if setup.is_quick else 90, 250
    new = setup.folder / "new"
    known = _instance(setup.folder / "known")
    kept_open = _instance(setup.folder / "kept-open", _our_storage(setup.folder / "kept-open"))
    for folder in (known, kept_open):
        measured(_empty(folder, 1))
    if setup.is_quick:
        return Result({f"empty asset, {days} days": [_staged(known, days)]})
    contenders: dict[str, Callable[[], Figures]] = {
        "python alone": lambda: measured(python("-c", "pass")).figures,
        "import dagster": lambda: measured(python("-c", "import dagster")).figures,
        "empty asset, 1 day, new instance": lambda: _staged(_fresh(new), 1),
        f"empty asset, {days} days, new instance": lambda: _staged(_fresh(new), days),
        f"empty asset, {days} days, known instance": lambda: _staged(known, days),
        f"empty asset, {days} days, our storage": lambda: _staged(
            kept_open, days, **environment_of(kept_open)
        ),
    }
    with homes.sandbox() as providers:
        asked = CLOCK.date() - timedelta(days=days), CLOCK.date() - timedelta(days=1)
        home = homes.new_home(setup.folder / "home", providers, coins, asked[0])
        invented = pd.DataFrame({"coin_id": [f"coin-{n:03}" for n in range(coins)]})
        histories.invent_closes(home, invented.assign(price_usd=1.0, supply=1e6), asked)
        nothing_to_do = command("materialize", home, *asked, "market_caps")
        measured(nothing_to_do)
        contenders[f"ours, {days} final days"] = lambda: measured(nothing_to_do).figures
        samples = in_turns(contenders, setup.repeats)
        assert not providers.calls()
    return Result(samples)


def _instance(folder: Path, storage: str = "") -> Path:
    folder.mkdir()
    (folder / "dagster.yaml").write_text(f"{QUIET}{storage}")
    return folder


def _our_storage(folder: Path) -> str:
    own = {"module": History.__module__, "class": History.__name__}
    config = {"base_dir": str(folder / "dagster")}
    return yaml.safe_dump({"storage": {"custom": own | {"config": config}}})


def _fresh(folder: Path) -> Path:
    number = sum(1 for _ in folder.parent.glob(f"{folder.name}-*"))
    return _instance(folder.with_name(f"{folder.name}-{number}"))


def _empty(folder: Path, days: int) -> list[str]:
    module = "crypto_assets_tests.benchmarks.rivals.empty_asset"
    return python("-m", module, str(folder), str(days))


def _staged(folder: Path, days: int, **environment: str) -> Figures:
    done = measured(_empty(folder, days), **environment)
    stages = {f"{name}_seconds": seconds for name, seconds in json.loads(done.said).items()}
    return done.figures | stages
