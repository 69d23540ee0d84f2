"""What is wrong with a home: each thing once, with what, where to look and what to do.

Belongs here: the judgement. Does not belong here: figures (`health`), telling (`alerts`).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.health import Health
from crypto_assets.monitoring.looking import EVERY_SERIES, Missing
from crypto_assets.monitoring.runs import BY_HAND
from crypto_assets.periods import wall_now
from crypto_assets.settings import Settings

UNDELIVERED = "alerts"
"""Key of the one condition that no alert can tell of."""
LOW_DISK_BYTES = 2 * 1024**3
# Younger days may still be coming by themselves.
_OLD = timedelta(days=3)
_SETTLING = timedelta(minutes=30)
_PATIENCE = timedelta(hours=3)
# Shares of the month's credits that are told of.
_NEARLY_ALL, _ALL = 0.8, 1.0


def conditions(health: Health, settings: Settings) -> list[Condition]:
    """Return all that is wrong, errors first."""
    found = [
        *_failed_runs(health, settings),
        *_failed_checks(health, settings),
        *_late_tables(health, settings),
        *_missing_days(health, settings),
        *_budget(health, settings),
        *_daemons(health, settings),
        *_disk(health, settings),
        *_alerts(health, settings),
    ]
    return sorted(found, key=lambda condition: not condition.is_error)


def standing(found: Iterable[Condition]) -> list[Condition]:
    """Return those that are not suspended."""
    return [condition for condition in found if not condition.is_suspended]


def unreadable(error: Exception, settings: Settings) -> Condition:
    """Return what is wrong with a home that can't even be looked at."""
    return Condition(
        "home",
        "the home can't be read",
        f"{error}.",
        "Run 'crypto-assets verify', and restore a backup where it finds something broken.",
        settings.alerts.ui_url,
    )


def _failed_runs(health: Health, settings: Settings) -> Iterator[Condition]:
    for run in health.failed_jobs:
        by_hand = run.job in BY_HAND
        yield Condition(
            f"run:{run.job}",
            "a run started by hand failed" if by_hand else f"the job {run.job} fails",
            f"Its last run ended at {run.since:%Y-%m-%d %H:%M} UTC: {run.reason}",
            "What was stored stays. Look at the run's log; "
            + ("start it again." if by_hand else "the next run of the job tries again."),
            f"{settings.alerts.ui_url}/runs/{run.run_id}",
        )


def _failed_checks(health: Health, settings: Settings) -> Iterator[Condition]:
    for finding in health.findings:
        what = (
            f"{finding.offending_rows} row(s) of {finding.table} break '{finding.check}' on "
            f"{finding.first} to {finding.last}"
        )
        since = health.publication.withheld_since
        if finding.withholds and since:
            detail = (
                f"Publication is withheld since {since:%Y-%m-%d %H:%M} UTC: {what}. "
                f"What should hold: {finding.description}"
            )
            advice = (
                "Readers keep the last good version. Look at the rows the check shows, then "
                "materialize these days again."
            )
        else:
            detail = f"{what}. What should hold: {finding.description}"
            advice = "Look at the rows the check shows."
        yield Condition(
            f"check:{finding.key}",
            f"{finding.table} fails its check {finding.check}",
            detail,
            advice,
            _checks_of(finding.table, settings),
            is_error=finding.is_error,
            of_check=True,
            is_suspended=finding.settles and _is_young(since),
        )


def _is_young(withheld_since: datetime | None) -> bool:
    """Tell whether a sensor may still be about to calculate again what withholds a publication."""
    return withheld_since is not None and wall_now() - withheld_since < _SETTLING


def _late_tables(health: Health, settings: Settings) -> Iterator[Condition]:
    # For a reason that is told already, or it is just coming.
    is_suspended = bool(health.publication.withheld_by) or _is_under_way(health)
    for late in health.freshness.values():
        if late.is_late:
            yield Condition(
                f"late:{late.table}",
                f"{late.table} is late",
                f"It {late}.",
                "Look at the last runs of its job and whether the daemon runs "
                "('crypto-assets status').",
                f"{settings.alerts.ui_url}/assets/{late.table}",
                is_suspended=is_suspended,
            )


def _missing_days(health: Health, settings: Settings) -> Iterator[Condition]:
    """Tell of days that nobody ever fetched: of a home whose refreshes have stopped, too."""
    old = health.at.date() - _OLD
    untold: dict[str, list[Missing]] = {}
    for gap in health.missing:
        if gap.series == EVERY_SERIES and gap.first <= old:
            untold.setdefault(gap.table, []).append(gap)
    for table, gaps in untold.items():
        yield Condition(
            f"missing:{table}",
            f"days of {table} were never fetched",
            "; ".join(f"{gap.first} to {gap.last}" for gap in gaps) + ".",
            f"Run 'crypto-assets backfill {table} --from {gaps[-1].first}', or keep "
            "'crypto-assets up' running, which brings them.",
            f"{settings.alerts.ui_url}/assets/{table}?view=partitions",
        )
    if health.given_up:
        yield Condition(
            "given up",
            f"{len(health.given_up)} day(s) are not asked for any more",
            "The providers did not have them for all the tries of healing.",
            "Look at 'crypto-assets status --json' for which; a backfill asks for them again.",
            settings.alerts.ui_url,
            is_error=False,
        )


def _is_under_way(health: Health) -> bool:
    """Tell whether a run may be bringing what is late; one that hangs is not waited for."""
    return any(wall_now() - run.since < _PATIENCE for run in health.unfinished_runs)


def _budget(health: Health, settings: Settings) -> Iterator[Condition]:
    credits = health.credits
    if credits.limit is None or credits.share < _NEARLY_ALL:
        return
    detail = f"{credits.used:,} of {credits.limit:,} credits of the plan '{credits.plan}'."
    link = f"{settings.alerts.ui_url}/runs"
    yield Condition(
        "budget:80%",
        "80% of the month's CoinGecko credits are used",
        detail,
        "See 'crypto-assets budget' for what costs them and which setting saves some.",
        link,
        is_error=False,
    )
    if credits.share >= _ALL:
        yield Condition(
            "budget:100%",
            "the month's CoinGecko credits are used up",
            detail,
            "Runs that need more are refused until the month ends: take a larger plan, or allow "
            "them with the setting coingecko.may_exceed_credits.",
            link,
        )


def _daemons(health: Health, settings: Settings) -> Iterator[Condition]:
    if health.has_two_daemons:
        yield Condition(
            "daemons",
            "two daemons work on this home",
            "They do every scheduled run twice.",
            "End one of them: 'crypto-assets up' is enough, without 'dagster dev' or "
            "'dagster-daemon' beside it.",
            f"{settings.alerts.ui_url}/deployment/daemons",
        )


def _disk(health: Health, settings: Settings) -> Iterator[Condition]:
    if health.free_bytes < LOW_DISK_BYTES:
        yield Condition(
            "disk",
            f"only {health.free_bytes / 1024**3:.1f} GB of disk are free",
            f"The home is {settings.home}.",
            "Make room for at least 2 GB: what can't be written is lost to readers, though never "
            "half-written.",
            settings.alerts.ui_url,
        )


def _alerts(health: Health, settings: Settings) -> Iterator[Condition]:
    if health.undelivered:
        yield Condition(
            UNDELIVERED,
            f"{health.undelivered} alert(s) could not be delivered",
            "A channel of alerts.urls does not take messages.",
            "Run 'crypto-assets alert-test' to see which.",
            settings.alerts.ui_url,
        )


def _checks_of(table: str, settings: Settings) -> str:
    return f"{settings.alerts.ui_url}/assets/{table}?view=checks"
