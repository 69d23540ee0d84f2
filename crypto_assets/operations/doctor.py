"""Is everything that a run needs there? One finding a line, each with what to do."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from crypto_assets.assets.platform import Platform
from crypto_assets.monitoring.conditions import LOW_DISK_BYTES
from crypto_assets.operations import home
from crypto_assets.operations.errors import OperationError
from crypto_assets.providers.errors import PermanentError, ProviderError
from crypto_assets.providers.plans import PLANS
from crypto_assets.settings import Settings
from crypto_assets.warehouse.errors import WarehouseError, WarehouseInUseError
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse

# Long enough for one answer, too short to wait out a rate limit.
_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    is_fine: bool
    told: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each thing a run needs, as it is looked at."""
    yield Finding("settings", True, _described(settings))
    yield Finding("versions", True, _versions())
    of_home = _home(settings)
    yield of_home
    yield _disk(settings)
    if of_home.is_fine and (settings.home / FILE_NAME).exists():
        yield _warehouse(settings)
    with ExitStack() as stack:
        # Providers can be tried without the home: a client only needs some folder.
        folder = settings.home
        if not of_home.is_fine:
            folder = Path(stack.enter_context(TemporaryDirectory()))
        yield from _providers(settings, folder)


def ask_coingecko(settings: Settings) -> str:
    """Return what CoinGecko tells of the plan and its key, by one call. Raises `ProviderError`."""
    with TemporaryDirectory() as folder, closing(_hasty(settings, Path(folder))) as platform:
        return _coingecko(platform)


def listed_coins(settings: Settings) -> frozenset[str]:
    """Return the ids of all coins that CoinGecko lists, by one call. Raises `ProviderError`."""
    with TemporaryDirectory() as folder, closing(_hasty(settings, Path(folder))) as platform:
        return frozenset(platform.coingecko.coin_list().data["coin_id"])


def _hasty(settings: Settings, folder: Path) -> Platform:
    patience = min(_PATIENCE_SECONDS, settings.fetch.retry_budget_seconds)
    fetch = settings.fetch.model_copy(update={"retry_budget_seconds": patience})
    hasty = settings.model_copy(update={"home": folder, "fetch": fetch})
    return Platform(hasty)


def _providers(settings: Settings, folder: Path) -> Iterator[Finding]:
    with closing(_hasty(settings, folder)) as platform:
        yield _reached("coingecko", lambda: _coingecko(platform))
        yield _reached("alternative.me", lambda: _fear_greed(platform))
        yield _reached("farside", lambda: _farside(platform))


def _described(settings: Settings) -> str:
    kind = "sandbox" if settings.is_sandbox else "live"
    return (
        f"{kind} home {settings.home}, plan '{settings.coingecko.plan}', "
        f"{settings.universe.tracked} coins tracked from {settings.history.start}"
    )


def _versions() -> str:
    names = ("crypto_assets", "dagster", "duckdb", "pandas")
    return f"Python {sys.version.split()[0]}, " + ", ".join(f"{n} {version(n)}" for n in names)


def _home(settings: Settings) -> Finding:
    try:
        home.prepare(settings)
    except OperationError as error:
        return Finding("home", False, str(error))
    return Finding("home", True, f"{settings.home} is writable")


def _disk(settings: Settings) -> Finding:
    existing = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    told = f"{free / 1024**3:.1f} GB free"
    if free < LOW_DISK_BYTES:
        return Finding("disk", False, f"only {told}: make room for at least 2 GB")
    return Finding("disk", True, told)


def _warehouse(settings: Settings) -> Finding:
    warehouse = replace(Warehouse.of(settings), lock_timeout_seconds=_PATIENCE_SECONDS)
    try:
        with warehouse.session("doctor"):
            return Finding("warehouse", True, f"{warehouse.path.name} opens")
    except WarehouseInUseError:
        return Finding("warehouse", True, f"{warehouse.path.name} is being written")
    except WarehouseError as error:
        return Finding("warehouse", False, str(error))


def _reached(subject: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, probe())
    except ProviderError as error:
        return Finding(subject, False, str(error))


def _coingecko(platform: Platform) -> str:
    # The free plans, and the sandbox's own, tell nothing of a key but that it is accepted.
    if not platform.plan.is_paid or platform.plan.key_header is None:
        platform.coingecko.ping()
        return f"reachable, plan '{platform.plan.name}'"
    usage = platform.coingecko.key_usage().data
    theirs = PLANS.get(usage.plan.lower())
    if theirs is not None and theirs.key_header and theirs.name != platform.plan.name:
        raise PermanentError(
            f"the key is one of the plan '{theirs.name}', not of '{platform.plan.name}'",
            provider="coingecko",
            asked="the key's usage",
            advice=f"set coingecko.plan to {theirs.name}",
        )
    return (
        f"reachable, key of plan '{usage.plan}', {usage.credits_left} of "
        f"{usage.credits_per_month} credits left, {usage.calls_per_minute} calls a minute"
    )


def _fear_greed(platform: Platform) -> str:
    newest = platform.fear_greed.history(limit=1).data.iloc[-1]
    return f"reachable, {newest['date'].date()}: {newest['value']} ({newest['label']})"


def _farside(platform: Platform) -> str:
    days = platform.farside.flows("btc").data.days
    return f"reachable, newest row {days['date'].max().date()}"
